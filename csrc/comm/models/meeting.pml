/* The meeting (protocol.h, rounds.h) for spin(1): every interleaving of RANKS ranks that meet in ROUNDS rounds, each with two
 * cells that take turns, where one rank may die before any step. Checked: a rank reads in a round the cells of that
 * round and no others' (a cell is not written again while a rank may read it), no rank sleeps for ever, a death
 * ends every survivor's wait, and without a death no rank fails.
 *
 * A cell's word is its round and the bit "a rank sleeps", which publishing takes off and answers with a wake. A
 * sleeper is also woken by its own clock now and then, and looks at the others: the model lets it look whenever
 * a rank has died, or has failed. Spinning and yielding are looks without effect, and left out. Memory is sequentially
 * consistent here: orders are ThreadSanitizer's business.
 *
 * holds: -DRANKS=2 -DROUNDS=5
 * holds: -DRANKS=3 -DROUNDS=2
 * finds: -DRANKS=2 -DROUNDS=4
 * finds: -DRANKS=3 -DROUNDS=2
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef ROUNDS
#define ROUNDS 4
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
bool ended[RANKS];        /* has succeeded or failed */
bool failed[RANKS];
bool failure;             /* Header::failure */
bool anyone_died;

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
  :: !anyone_died -> d_step { anyone_died = true; dead[me] = true }; goto gone
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
     :: !failure && dead[peer] ->
        if
        :: word[c] == round -> break
        :: else -> failure = true; failed[me] = true; goto over
        fi
     :: else
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
     atomic { (!asleep[me] || anyone_died || failure) -> asleep[me] = false }
#endif
  od
}

proctype rank(byte me) {
  byte round = 1, peer, k;
  bool had;
  do
  :: round <= ROUNDS ->
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
over:
  ended[me] = true;
  assert(!failed[me] || anyone_died);
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
