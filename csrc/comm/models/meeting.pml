/* The meeting (protocol.h, rounds.h) for spin(1): every interleaving of RANKS ranks that meet in ROUNDS rounds, each with two
 * cells that take turns, where one rank may die before any step, or give up while it waits (LEAVES). A rank that has met in all
 * rounds closes the group at once, while others may still wait for it. Checked: a rank reads in a round the cells of that round and
 * no others' (a cell is not written again while a rank may read it), no rank sleeps for ever, a death, or a rank that gives up, ends
 * every other rank's wait, and without these no rank fails.
 *
 * A cell's word is its round and the bit "a rank sleeps", which publishing takes off and answers with a wake. A
 * sleeper is also woken by its own clock now and then, and looks at the others: the model lets it look whenever
 * a rank has died, has failed, or has closed the group. Spinning and yielding are looks without effect, and left out. Memory is sequentially
 * consistent here: orders are ThreadSanitizer's business.
 *
 * holds: -DRANKS=2 -DROUNDS=5
 * holds: -DRANKS=3 -DROUNDS=2
 * holds: -DRANKS=2 -DROUNDS=4 -DLEAVES=1
 * holds: -DRANKS=3 -DROUNDS=1 -DDEATHS=0 -DLEAVES=1
 * finds: -DRANKS=2 -DROUNDS=4
 * finds: -DRANKS=3 -DROUNDS=2
 * finds BUG_NO_SECOND_LOOK: -DRANKS=2 -DROUNDS=2 -DDEATHS=0
 * finds BUG_CLOSES_FIRST: -DRANKS=2 -DROUNDS=2 -DDEATHS=0
 * finds BUG_LEAVES_SILENTLY: -DRANKS=2 -DROUNDS=2 -DDEATHS=0 -DLEAVES=1
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef ROUNDS
#define ROUNDS 4
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#ifdef BUG_ONE_CELL
#define CELL(rank, round) (rank)
#else
#define CELL(rank, round) ((rank) * 2 + ((round) & 1))
#endif

byte word[2 * RANKS];     /* the round */
byte message[2 * RANKS];  /* what its rank wrote before it published: the round, too */
bool sleeper[2 * RANKS];
bool asleep[RANKS];       /* in futex_wait */
byte on[RANKS];           /* on this cell */
bool dead[RANKS];
bool closed[RANKS];       /* has left the group by close */
bool ended[RANKS];        /* has succeeded or failed */
bool failed[RANKS];
bool failure;             /* Header::failure */
bool anyone_died, anyone_left;

inline wake(c) {
  d_step {
    k = 0;
    do
    :: k < RANKS -> if :: asleep[k] && on[k] == c -> asleep[k] = false :: else fi; k++
    :: else -> break
    od;
    k = 0
  }
}

/* One rank may die before any step. */
inline step() {
  if
  :: DEATHS && !anyone_died -> d_step { anyone_died = true; dead[me] = true }; goto gone
  :: true
  fi
}

inline publish(c) {
  step();
  message[c] = round;
  step();
#ifdef BUG_LOOK_THEN_STORE
  had = sleeper[c];
  d_step { word[c] = round; sleeper[c] = false };
#else
  d_step { had = sleeper[c]; word[c] = round; sleeper[c] = false };
#endif
  step();
  if :: had -> wake(c) :: else fi
}

inline await(c, peer) {
  do
  :: word[c] == round -> break
  :: word[c] != round ->
     step();
#ifndef BUG_NO_LOOK_AT_PEERS
     /* look_after: what has happened counts before who is to blame */
     if
     :: failure -> if :: word[c] == round -> break :: else -> failed[me] = true; goto over fi
     :: !failure && (dead[peer] || closed[peer]) ->
        if
#ifndef BUG_NO_SECOND_LOOK
        :: word[c] == round -> break
#endif
        :: else -> failure = true; failed[me] = true; goto over
        fi
     :: atomic { LEAVES && !anyone_left && word[c] != round -> anyone_left = true };
#ifndef BUG_LEAVES_SILENTLY
        failure = true;
#endif
        failed[me] = true;
        goto over
     :: !failure && !dead[peer] && !closed[peer]
     fi;
#endif
     /* the sleeper bit by compare-and-swap, then futex_wait, which looks at the word once more */
     atomic {
       if
       :: word[c] == round
       :: else -> sleeper[c] = true
       fi
     }
     atomic {
       if
       :: word[c] != round && sleeper[c] -> asleep[me] = true; on[me] = c
       :: else
       fi
     }
#ifdef BUG_NO_LOOK_AT_PEERS
     !asleep[me]
#else
     atomic { (!asleep[me] || anyone_died || failure || closed[peer]) -> asleep[me] = false }
#endif
  od
}

proctype rank(byte me) {
  byte round = 1, peer, k;
  bool had;
  do
  :: round <= ROUNDS ->
#ifdef BUG_CLOSES_FIRST
     if :: round == ROUNDS -> closed[me] = true :: else fi;
#endif
     publish(CELL(me, round));
     peer = 0;
     do
     :: peer < RANKS ->
        if
        :: peer != me ->
#ifndef BUG_NO_WAIT
           await(CELL(peer, round), peer);
#endif
           step();
           assert(message[CELL(peer, round)] == round)
        :: else
        fi;
        peer++
     :: else -> break
     od;
     round++
  :: else -> break
  od;
  closed[me] = true;
over:
  ended[me] = true;
  assert(!failed[me] || anyone_died || anyone_left);
gone:
  skip
}

init {
  byte i = 0;
  atomic {
    do
    :: i < RANKS -> run rank(i); i++
    :: else -> break
    od
  }
}
