/* Team and Signal (team.h, wait.h) for spin(1): every interleaving of RUNS forks and joins of LANES lanes with BARRIERS
 * barriers each, or without barriers (run_each), where lane 0 does the part of a worker that has not come for it; then
 * the workers are told to end. Checked: no lane passes a barrier before all have arrived, none gets two ahead, a run
 * ends only when each part is done, no part is done twice, and no process sleeps for ever (spin reports a deadlock as an
 * invalid end state).
 *
 * Values are counted modulo 16 instead of 2^31, so that they wrap soon, and lifted (refresh_arrivals) after four
 * instead of 2^29, since lanes whose part was taken over lag behind. Spinning and yielding are looks at the
 * word without effect, and left out. Memory is sequentially consistent here: orders are ThreadSanitizer's business.
 *
 * For scripts/check_model.sh; the bugs are sought in a few long runs, and in many short ones:
 * holds: -DLANES=2 -DRUNS=4 -DBARRIERS=3
 * holds: -DLANES=2 -DRUNS=9 -DBARRIERS=0
 * holds: -DLANES=3 -DRUNS=2 -DBARRIERS=1
 * holds: -DLANES=3 -DRUNS=1 -DBARRIERS=2
 * finds: -DLANES=2 -DRUNS=4 -DBARRIERS=3
 * finds: -DLANES=2 -DRUNS=10 -DBARRIERS=0
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
#define MASK 15
#define REFRESH_AFTER 4
#define WORK(i) (i)
#define ARRIVED(i) (LANES + (i))
#define REACHED(now, target) (((now - target) & MASK) < 8)

byte value[2 * LANES];    /* Signal::word_, the 31 bits */
bool sleeper[2 * LANES];  /* Signal::word_, the lowest bit */
bool asleep[LANES];       /* in futex_wait */
byte on[LANES];           /* on this signal */
byte came[LANES];         /* barriers that the lane has reached, over all runs */
byte finished[LANES];     /* runs whose body the lane has left */
byte taken[LANES];        /* Seat::taken */
byte team_sequence;       /* Team::sequence_, lane 0's after each run */
bool each;                /* this run has no barriers: run_each */
bool stop;                /* lanes_ < 0 */

inline publish(s, v) {
#ifdef BUG_LOOK_THEN_STORE
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
#ifndef BUG_NO_SLEEPER_BIT
     atomic { if :: value[s] == seen -> sleeper[s] = true :: else fi };
#endif
     atomic {
       if
#ifdef BUG_NO_SLEEPER_BIT
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
#ifdef BUG_CHANGED_NOT_REACHED
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

/* Compare-and-swap: one of the worker and lane 0 gets the part. */
inline take(lane, number) {
#ifdef BUG_LOOK_THEN_TAKE
  won = (taken[lane] == ((number - 1) & MASK));
  if :: won -> taken[lane] = (number) & MASK :: else fi
#else
  d_step {
    won = (taken[lane] == ((number - 1) & MASK));
    if :: won -> taken[lane] = (number) & MASK :: else fi
  }
#endif
}

proctype Worker(byte me) {
  byte i, k, now, turn, seen;
  byte sequence = 0;
  bool had = false, won;
  do
  :: wait_change(WORK(me), seen);
     seen = value[WORK(me)];
     take(me, seen);
#ifdef BUG_LATE_WORKER_RUNS
     won = true;
#endif
     if
     :: won && stop -> break
     :: won && !stop ->
        sequence = team_sequence;
        if
        :: each -> finished[me]++
        :: else -> body()
        fi;
        sequence++;
        publish(ARRIVED(me), sequence)
     :: else
     fi
  od
}

proctype Lane0() {
  byte me = 0, i, k, now, turn, runs, refreshed;
  byte sequence = 0;
  bool had = false, won;
  bool other[LANES];
  do
  :: runs < RUNS ->
#ifndef BUG_NEVER_REFRESHED
     if
     :: team_sequence - refreshed > REFRESH_AFTER ->
        i = 0;
        do
        :: i < LANES -> publish(ARRIVED(i), team_sequence); i++
        :: else -> break
        od;
        refreshed = team_sequence
     :: else
     fi;
#endif
     if :: each = true :: each = false fi;
     i = 1;
     do
     :: i < LANES -> publish(WORK(i), runs + 1); i++
     :: else -> break
     od;
     if
     :: each -> finished[me]++
     :: else -> body()
     fi;
     sequence++;
     i = 1;
     do
     :: i < LANES ->
        other[i] = true;
        if
        :: each ->
           take(i, runs + 1);
           if :: won -> other[i] = false; finished[i]++ :: else fi
        :: else
        fi;
        i++
     :: else -> break
     od;
     i = 1;
     do
     :: i < LANES ->
        if :: other[i] -> wait_reached(ARRIVED(i), sequence) :: else fi;
        i++
     :: else -> break
     od;
     team_sequence = sequence;
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
  od;
  stop = true;
  i = 1;
  do
  :: i < LANES -> publish(WORK(i), RUNS + 1); i++
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
