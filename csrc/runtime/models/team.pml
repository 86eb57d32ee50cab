/* Team and Signal (team.h, wait.h) for spin(1): every interleaving of RUNS forks and joins of LANES lanes with BARRIERS
 * barriers each. Checked: no lane passes a barrier before all have arrived, none gets two ahead, a run ends only when
 * all lanes have finished, and nobody sleeps for ever (spin reports a deadlock as an invalid end state).
 *
 * Values are counted modulo 8 instead of 2^31, so that they wrap within a run. Spinning and yielding are looks at the
 * word without effect, and left out. Memory is sequentially consistent here: orders are ThreadSanitizer's business.
 *
 * Bugs can be planted, and must be found (see `check`): LOOK_THEN_STORE, CHANGED_NOT_REACHED, NO_SLEEPER_BIT.
 */
#ifndef LANES
#define LANES 2
#endif
#ifndef RUNS
#define RUNS 3
#endif
#ifndef BARRIERS
#define BARRIERS 2
#endif
#define MASK 7
#define WORK(i) (i)
#define ARRIVED(i) (LANES + (i))
#define REACHED(now, target) (((now - target) & MASK) < 4)

byte value[2 * LANES];    /* Signal::word_, the 31 bits */
bool sleeper[2 * LANES];  /* Signal::word_, the lowest bit */
bool asleep[LANES];       /* in futex_wait */
byte on[LANES];           /* on this signal */
byte came[LANES];         /* barriers that the lane has reached, over all runs */
byte finished[LANES];     /* runs whose body the lane has left */
byte run_number;

inline publish(s, v) {
#ifdef LOOK_THEN_STORE
  had = sleeper[s];
  d_step { value[s] = (v) & MASK; sleeper[s] = false }
#else
  d_step { had = sleeper[s]; value[s] = (v) & MASK; sleeper[s] = false }
#endif
  if
  :: had ->
     d_step {
       k = 0;
       do
       :: k < LANES -> if :: asleep[k] && on[k] == s -> asleep[k] = false :: else fi; k++
       :: else -> break
       od;
       k = 0; had = false
     }
  :: else
  fi
}

/* wait_change_slowly: load, set the sleeper bit by compare-and-swap, sleep if the word is still that. */
inline wait_change(s, seen) {
  do
  :: value[s] != seen -> break
  :: else ->
#ifndef NO_SLEEPER_BIT
     atomic { if :: value[s] == seen -> sleeper[s] = true :: else fi };
#endif
     atomic {
       if
#ifdef NO_SLEEPER_BIT
       :: value[s] == seen -> asleep[me] = true; on[me] = s
#else
       :: value[s] == seen && sleeper[s] -> asleep[me] = true; on[me] = s
#endif
       :: else
       fi
     };
     !asleep[me]
  od
}

inline wait_reached(s, target) {
#ifdef CHANGED_NOT_REACHED
  now = (target - 1) & MASK;
  do
  :: value[s] == now -> wait_change(s, now)
  :: value[s] != (target & MASK) && value[s] != now -> wait_change(s, value[s])
  :: value[s] == (target & MASK) -> break
  od
#else
  do
  :: now = value[s];
     if
     :: REACHED(now, target) -> break
     :: else -> wait_change(s, now)
     fi
  od
#endif
}

inline barrier() {
  sequence++;
  came[me]++;
  publish(ARRIVED(me), sequence);
  i = 0;
  do
  :: i < LANES ->
     if :: i != me -> wait_reached(ARRIVED(i), sequence) :: else fi;
     i++
  :: else -> break
  od;
  skip;
  d_step {
    i = 0;
    do
    :: i < LANES -> assert(came[i] >= came[me]); assert(came[i] <= came[me] + 1); i++
    :: else -> break
    od;
    i = 0
  }
}

inline body() {
  turn = 0;
  do
  :: turn < BARRIERS -> barrier(); turn++
  :: else -> turn = 0; break
  od;
  finished[me]++
}

proctype Worker(byte me) {
  byte i, k, now, turn, seen, runs;
  byte sequence = 0;
  bool had = false;
  do
  :: runs < RUNS ->
     wait_change(WORK(me), seen);
     seen = value[WORK(me)];
     sequence = run_number * (BARRIERS + 1);
     body();
     sequence++;
     publish(ARRIVED(me), sequence);
     runs++
  :: else -> break
  od
}

proctype Lane0() {
  byte me = 0, i, k, now, turn, runs;
  byte sequence = 0;
  bool had = false;
  do
  :: runs < RUNS ->
     run_number = runs;
     i = 1;
     do
     :: i < LANES -> publish(WORK(i), runs + 1); i++
     :: else -> break
     od;
     body();
     sequence++;
     i = 1;
     do
     :: i < LANES -> wait_reached(ARRIVED(i), sequence); i++
     :: else -> break
     od;
     runs++;
     d_step {
       i = 1;
       do
       :: i < LANES -> assert(finished[i] == runs); i++
       :: else -> break
       od;
       i = 0
     }
  :: else -> break
  od
}

init {
  byte n = 1;
  atomic {
    run Lane0();
    do
    :: n < LANES -> run Worker(n); n++
    :: else -> break
    od
  }
}
