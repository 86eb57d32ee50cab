/* all_reduce by owners (all_reduce.cc) for spin(1): every interleaving of RANKS ranks that reduce OPERATIONS times in place,
 * where one rank may die before any step, or one may want something else (OTHER: its number plus 1), or any wait may
 * come to its deadline though the other rank is only slow (STALLS), or one rank gives up while it waits (LEAVES). A rank that has
 * done all operations leaves the group. Each rank owns one element of every array. Checked: each result that a rank returns is the
 * sum of what all brought; no rank writes to an array before all ranks are known to want the same; no rank writes to an array whose
 * rank has returned from the operation; a death, a difference or a rank that gives up ends every operation, with an error; without
 * one no rank fails.
 *
 * The rounds are those of meeting.pml, without its sleepers. A rank that fails moves its array to private memory before it
 * returns, which the model has as: writes of others no longer reach it.
 *
 * holds: -DRANKS=2 -DOPERATIONS=2 -DOTHER=0
 * holds: -DRANKS=2 -DOPERATIONS=2 -DOTHER=2
 * holds: -DRANKS=2 -DOPERATIONS=2 -DOTHER=0 -DSTALLS=1
 * holds: -DRANKS=3 -DOPERATIONS=1 -DOTHER=0
 * holds: -DRANKS=3 -DOPERATIONS=1 -DOTHER=2
 * holds: -DRANKS=2 -DOPERATIONS=2 -DOTHER=0 -DLEAVES=1
 * holds: -DRANKS=3 -DOPERATIONS=1 -DOTHER=0 -DDEATHS=0 -DSTALLS=1
 * holds: -DRANKS=3 -DOPERATIONS=1 -DOTHER=0 -DDEATHS=0 -DLEAVES=1
 * finds: -DRANKS=2 -DOPERATIONS=2 -DOTHER=0
 * finds: -DRANKS=2 -DOPERATIONS=2 -DOTHER=2
 * finds BUG_ARRAYS_STAY: -DRANKS=2 -DOPERATIONS=2 -DOTHER=0 -DSTALLS=1
 * finds BUG_LEAVES_SILENTLY: -DRANKS=3 -DOPERATIONS=1 -DOTHER=0 -DDEATHS=0 -DLEAVES=1
 * finds BUG_RETURNS_THEN_HIDES: -DRANKS=3 -DOPERATIONS=1 -DOTHER=0 -DDEATHS=0 -DSTALLS=1
 * finds BUG_NO_COMPARISON: -DRANKS=2 -DOPERATIONS=1 -DOTHER=2
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef OPERATIONS
#define OPERATIONS 2
#endif
#ifndef OTHER
#define OTHER 0
#endif
#ifndef STALLS
#define STALLS 0
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define CELL(rank, round) ((rank) * 2 + ((round) & 1))
#define AT(rank, element) ((rank) * RANKS + (element))
#define BROUGHT(rank) ((rank) + 1)
#define SUM (RANKS * (RANKS + 1) / 2)

byte word[2 * RANKS];
bool other[2 * RANKS];          /* the cell's agreement */
byte array[RANKS * RANKS];      /* element e of rank r's array */
bool inside[RANKS];             /* the rank is in the operation: others may write to its array */
bool private[RANKS];            /* its array has left the shared memory */
bool dead[RANKS], closed[RANKS];
bool failure, anyone_died, anyone_differs, anyone_left;

inline step() {
  if
  :: DEATHS && !anyone_died && OTHER == 0 -> d_step { anyone_died = true; dead[me] = true }; goto gone
  :: true
  fi
}

inline publish(differs) {
  step();
  d_step { other[CELL(me, round)] = differs; word[CELL(me, round)] = round }
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
     /* It waits until there is something to see, and then looks at the word once more before it blames the other rank. */
     (word[CELL(peer, round)] == round || failure || dead[peer] || closed[peer] || STALLS);
     if
#ifdef BUG_NO_SECOND_LOOK
     :: failure || dead[peer] || closed[peer] || STALLS -> failure = true; goto failed
     :: else
#else
     :: word[CELL(peer, round)] == round
     :: word[CELL(peer, round)] != round -> failure = true; goto failed
#endif
     fi
  fi
}

proctype rank(byte me) {
  byte round = 0, peer, operation = 0, e, sum;
  do
  :: operation < OPERATIONS ->
     e = 0;
     d_step {
       do
       :: e < RANKS -> array[AT(me, e)] = BROUGHT(me); e++
       :: else -> break
       od
     }
     inside[me] = true;
     if :: failure -> goto failed :: else fi;
     round++;
     publish(OTHER == me + 1);
     peer = 0;
     do
     :: peer < RANKS ->
        if
        :: peer != me ->
           await(peer);
#ifndef BUG_NO_COMPARISON
           if
           :: other[CELL(peer, round)] != (OTHER == me + 1) -> failure = true; goto failed
           :: else
           fi
#endif
        :: else
        fi;
        peer++
     :: else -> break
     od;
     /* the owner of element `me` reads it from all arrays, then writes it to all */
     sum = 0; peer = 0;
     do
     :: peer < RANKS -> step(); sum = sum + array[AT(peer, me)]; peer++
     :: else -> break
     od;
     peer = 0;
     do
     :: peer < RANKS ->
        step();
        atomic {
          assert(!anyone_differs);
          assert(inside[peer] || dead[peer] || private[peer]);
          if :: !private[peer] -> array[AT(peer, me)] = sum :: else fi
        };
        peer++
     :: else -> break
     od;
#ifndef BUG_NO_SECOND_ROUND
     round++;
     publish(false);
     peer = 0;
     do
     :: peer < RANKS -> if :: peer != me -> await(peer) :: else fi; peer++
     :: else -> break
     od;
#endif
     e = 0;
     do
     :: e < RANKS -> assert(array[AT(me, e)] == SUM); e++
     :: else -> break
     od;
     inside[me] = false;
     operation++
  :: else -> break
  od;
  assert(OTHER == 0);
  closed[me] = true;
  goto gone;
failed:
#ifdef BUG_RETURNS_THEN_HIDES
  inside[me] = false;
#endif
#ifndef BUG_ARRAYS_STAY
  private[me] = true;
#endif
  inside[me] = false;
  assert(anyone_died || anyone_left || OTHER != 0 || STALLS);
gone:
  skip
}

init {
  byte i = 0;
  anyone_differs = OTHER != 0;
  atomic {
    do
    :: i < RANKS -> run rank(i); i++
    :: else -> break
    od
  }
}
