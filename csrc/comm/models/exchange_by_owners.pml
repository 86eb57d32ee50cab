/* The exchange of pieces between more than two ranks (staged_by_owners in all_reduce.cc) for spin(1): every interleaving of
 * OPERATIONS operations of PIECES pieces each. A rank has, in each half of its staging memory, a place for every other
 * rank. In step t it puts its elements of piece t there; in step t + 1 the other rank, the owner of that slice, reduces
 * them and leaves the result in the same place; in step t + 2 the rank takes it. So a place belongs to one of two ranks at a time.
 * Operations differ: some have a round before, without staging memory, as of a barrier; in some, a rank has staged its piece in
 * vain, and does so again; some are gathers, in which every rank reads what another one has put into a half. With DEATHS, one
 * rank may die before any step; with STALLS, any wait may come to its deadline though the other rank is only slow; with LEAVES, one
 * rank may give up while it waits. A rank that has done all operations leaves the group. Checked: an owner finds that rank's elements
 * of that turn, a rank finds that owner's result, even if that rank has failed since; no rank waits for ever; a death, or a rank that
 * gives up, ends the operations of the others with an error; without these no rank fails.
 *
 * holds: -DRANKS=2 -DOPERATIONS=5 -DPIECES=3 -DDEATHS=0
 * holds: -DRANKS=3 -DOPERATIONS=4 -DPIECES=1 -DDEATHS=0
 * holds: -DRANKS=3 -DOPERATIONS=2 -DPIECES=4 -DDEATHS=0
 * holds: -DRANKS=2 -DOPERATIONS=5 -DPIECES=3 -DDEATHS=1
 * holds: -DRANKS=3 -DOPERATIONS=2 -DPIECES=1 -DDEATHS=1
 * holds: -DRANKS=2 -DOPERATIONS=4 -DPIECES=2 -DDEATHS=1 -DSTALLS=1
 * holds: -DRANKS=3 -DOPERATIONS=1 -DPIECES=1 -DDEATHS=0 -DSTALLS=1
 * holds: -DRANKS=3 -DOPERATIONS=1 -DPIECES=1 -DDEATHS=0 -DLEAVES=1
 * finds: -DRANKS=3 -DOPERATIONS=4 -DPIECES=1 -DDEATHS=0
 * finds: -DRANKS=3 -DOPERATIONS=2 -DPIECES=3 -DDEATHS=0
 * finds: -DRANKS=2 -DOPERATIONS=2 -DPIECES=1 -DDEATHS=1
 * finds BUG_LEAVES_SILENTLY: -DRANKS=3 -DOPERATIONS=1 -DPIECES=1 -DDEATHS=0 -DLEAVES=1
 * finds BUG_FAILED_GOES_ON: -DRANKS=3 -DOPERATIONS=1 -DPIECES=1 -DDEATHS=0 -DSTALLS=1
 */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef OPERATIONS
#define OPERATIONS 2
#endif
#ifndef PIECES
#define PIECES 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STALLS
#define STALLS 0
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#define CELL(rank, round) ((rank) * 2 + ((round) & 1))
#ifdef BUG_ONE_HALF
#define PLACE(from, to, turn) (((from) * RANKS + (to)) * 2)
#else
#define PLACE(from, to, turn) (((from) * RANKS + (to)) * 2 + ((turn) & 1))
#endif
#define GIVEN(turn) ((turn) * 3 + 1)
#define REDUCED(turn) ((turn) * 3 + 2)
#define GATHERED(turn) ((turn) * 3 + 3)
#define IN_VAIN 255

byte word[2 * RANKS];
byte place[2 * RANKS * RANKS];
bool dead[RANKS], closed[RANKS];
bool failure, anyone_died, anyone_left;

inline may_die() {
  if
  :: DEATHS && !anyone_died -> d_step { anyone_died = true; dead[me] = true }; goto gone
  :: true
  fi
}

inline await(peer) {
  if
  :: word[CELL(peer, round)] == round
  :: atomic { LEAVES && !anyone_left && word[CELL(peer, round)] != round -> anyone_left = true };
#ifndef BUG_LEAVES_SILENTLY
     failure = true;
#endif
     goto failed
  :: word[CELL(peer, round)] != round ->
#ifdef BUG_NO_LOOK_AT_PEERS
     word[CELL(peer, round)] == round
#else
     /* It waits until there is something to see, and then looks at the word once more before it blames the other rank. */
     (word[CELL(peer, round)] == round || failure || dead[peer] || closed[peer] || STALLS);
     if
#ifdef BUG_NO_SECOND_LOOK
     :: failure || dead[peer] || closed[peer] || STALLS -> failure = true; goto failed
     :: else
#else
     :: word[CELL(peer, round)] == round
     :: else -> failure = true; goto failed
#endif
     fi
#endif
  fi
}

inline meet() {
  round++;
  may_die();
  word[CELL(me, round)] = round;
#ifndef BUG_NO_WAIT
  k = 0;
  do
  :: k < RANKS -> if :: k != me -> await(k) :: else fi; k++
  :: else -> break
  od;
#endif
  k = 0
}

inline put(value, when) {
  k = 0;
  do
  :: k < RANKS -> if :: k != me -> may_die(); place[PLACE(me, k, when)] = value :: else fi; k++
  :: else -> break
  od;
  k = 0
}

inline take(value, when) {
  k = 0;
  do
  :: k < RANKS -> if :: k != me -> assert(place[PLACE(me, k, when)] == value) :: else fi; k++
  :: else -> break
  od;
  k = 0
}

inline reduce(when) {
  k = 0;
  do
  :: k < RANKS ->
    if
    :: k != me -> assert(place[PLACE(k, me, when)] == GIVEN(when)); may_die(); place[PLACE(k, me, when)] = REDUCED(when)
    :: else
    fi;
    k++
  :: else -> break
  od;
  k = 0
}

inline gather() {
  put(GATHERED(turn), turn);
  meet();
  do
  :: k < RANKS -> if :: k != me -> assert(place[PLACE(k, me, turn)] == GATHERED(turn)) :: else fi; k++
  :: else -> break
  od;
  k = 0;
#ifndef BUG_NO_TURN
  turn++
#else
  skip
#endif
}

active [RANKS] proctype rank() {
  byte me = _pid, round, turn, operation, step, k;

  do
  :: operation == OPERATIONS -> break
  :: else ->
    if
    :: operation % 4 == 1 -> gather()
    :: operation % 4 == 2 -> put(IN_VAIN, turn); meet()
    :: operation % 4 == 3 -> meet()
    :: else
    fi;
    put(GIVEN(turn), turn);
    step = 1;
    do
    :: step > PIECES + 1 -> break
    :: else ->
#ifdef BUG_NO_LAST_ROUND
      if
      :: step <= PIECES -> meet()
      :: else
      fi;
#else
      meet();
#endif
      if
      :: step <= PIECES -> reduce(turn + step - 1)
      :: else
      fi;
      if
      :: step >= 2 -> take(REDUCED(turn + step - 2), turn + step - 2)
      :: else
      fi;
      if
      :: step < PIECES -> put(GIVEN(turn + step), turn + step)
      :: else
      fi;
      step++
    od;
    turn = turn + PIECES;
    operation++
  od;
  closed[me] = true;
  goto gone;
failed:
  assert(anyone_died || STALLS || anyone_left);
#ifdef BUG_FAILED_GOES_ON
  put(GIVEN(turn + 1), turn);
#endif
gone:
  skip
}
