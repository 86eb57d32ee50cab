/* The exchange of pieces between two ranks (exchange in all_reduce.cc) for spin(1): every interleaving of OPERATIONS
 * operations of PIECES pieces each. Two halves of staging memory are shared: in turn t rank q has its piece in half
 * (q + t) mod 2, reads the other one, and puts its next piece there. Operations differ: some have a round before, without
 * staging memory, as of a barrier; in some, a rank has staged its piece in vain, as the ranks did not all stage, and does
 * so again. With DEATHS, one rank may die before any step, or between two steps of a copy; with STALLS, any wait may come to its
 * deadline though the other rank is only slow; with LEAVES, one rank may give up while it waits. A rank that has done all operations
 * leaves the group. Checked: what a rank reads is the other rank's whole piece of that turn, even if that rank has failed since; no
 * rank waits for ever; a death, or a rank that gives up, ends the other rank's operation with an error; without these no rank fails.
 *
 * holds: -DOPERATIONS=4 -DPIECES=1 -DDEATHS=0
 * holds: -DOPERATIONS=3 -DPIECES=3 -DDEATHS=0
 * holds: -DOPERATIONS=4 -DPIECES=1 -DDEATHS=1
 * holds: -DOPERATIONS=3 -DPIECES=3 -DDEATHS=1
 * holds: -DOPERATIONS=3 -DPIECES=3 -DDEATHS=1 -DSTALLS=1
 * holds: -DOPERATIONS=3 -DPIECES=3 -DDEATHS=1 -DLEAVES=1
 * finds: -DOPERATIONS=3 -DPIECES=3 -DDEATHS=0
 * finds: -DOPERATIONS=3 -DPIECES=3 -DDEATHS=1
 * finds BUG_LEAVES_SILENTLY: -DOPERATIONS=2 -DPIECES=2 -DDEATHS=0 -DLEAVES=1
 * finds BUG_FAILED_GOES_ON: -DOPERATIONS=3 -DPIECES=2 -DDEATHS=0 -DSTALLS=1
 */
#ifndef OPERATIONS
#define OPERATIONS 3
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
#ifdef BUG_SAME_HALVES
#define HALF(rank, turn) (rank)
#else
#define HALF(rank, turn) (((rank) + (turn)) & 1)
#endif
#define PIECE(rank, number) ((number) * 2 + (rank) + 1)
#define IN_VAIN 255
#define TORN 254 /* a copy that has begun and has not ended */

byte word[4];
byte half[2];
bool dead[2], closed[2];
bool failure, anyone_left;

inline may_die() {
  if
  :: DEATHS && !dead[0] && !dead[1] -> dead[me] = true; goto gone
  :: true
  fi
}

inline put(place, value) {
  may_die();
  half[place] = TORN;
  may_die();
  half[place] = value
}

inline meet() {
  round++;
  may_die();
  word[CELL(me, round)] = round;
#ifdef BUG_NO_WAIT
  skip
#else
  if
  :: word[CELL(other, round)] == round
  :: atomic { LEAVES && !anyone_left && word[CELL(other, round)] != round -> anyone_left = true };
#ifndef BUG_LEAVES_SILENTLY
     failure = true;
#endif
     goto failed
  :: word[CELL(other, round)] != round ->
#ifdef BUG_NO_LOOK_AT_PEERS
     word[CELL(other, round)] == round
#else
     /* It waits until there is something to see, and then looks at the word once more before it blames the other rank. */
     (word[CELL(other, round)] == round || failure || dead[other] || closed[other] || STALLS);
     if
#ifdef BUG_NO_SECOND_LOOK
     :: failure || dead[other] || closed[other] || STALLS -> failure = true; goto failed
     :: else
#else
     :: word[CELL(other, round)] == round
     :: else -> failure = true; goto failed
#endif
     fi
#endif
  fi
#endif
}

active [2] proctype rank() {
  byte me = _pid, other = 1 - _pid;
  byte round, turn, operation, piece;

  do
  :: operation == OPERATIONS -> break
  :: else ->
    if
    :: operation % 3 == 1 -> meet()
    :: operation % 3 == 2 -> put(HALF(me, turn), IN_VAIN); meet()
    :: else
    fi;
    put(HALF(me, turn), PIECE(me, turn));
    piece = 0;
    do
    :: piece == PIECES -> break
    :: else ->
      meet();
      assert(half[HALF(other, turn)] == PIECE(other, turn));
      if
      :: piece + 1 < PIECES -> put(HALF(other, turn), PIECE(me, turn + 1))
      :: else
      fi;
#ifndef BUG_NO_TURN
      turn++;
#else
      if
      :: piece + 1 < PIECES -> turn++
      :: else
      fi;
#endif
      piece++
    od;
    operation++
  od;
  closed[me] = true;
  goto gone;
failed:
  assert(dead[other] || STALLS || anyone_left);
#ifdef BUG_FAILED_GOES_ON
  put(HALF(me, turn), PIECE(me, turn + 1));
#endif
gone:
  skip
}
