/* The protocol of csrc/loader/ring.h between processes: one producer, killed between any two instructions, and the
 * consumer, who confirms the death, recovers the stripe and starts a successor.
 *
 * Checked over all interleavings and all moments of death: every ticket is delivered once and in order, whole; a
 * ticket that was committed is not produced again; no process waits for ever.
 *
 * -DRESTING: the consumer sends the producer to rest and calls it back (csrc/loader/control.h, RunBlock::from): of a
 * batch that is allowed meanwhile this stripe has no share, and whoever claims its ticket first commits nothing.
 *
 * For scripts/check_model.sh:
 * holds: -DTICKETS=6
 * holds: -DRESTING -DTICKETS=6 -DDEATHS=0 -DCHANGES=4
 * holds: -DRESTING -DTICKETS=5 -DDEATHS=2
 * finds: -DTICKETS=6
 * finds: -DRESTING -DTICKETS=5 -DDEATHS=1
 */
#ifndef TICKETS
#define TICKETS 6
#endif
#define CELLS 2
#define TURNS 4
#ifndef DEATHS
#define DEATHS 3
#endif
#ifndef CHANGES
#define CHANGES 2 /* of who is active */
#endif

byte turn[CELLS];
bool sleeper[CELLS];
byte slot[CELLS];
byte claimed, delivered, deaths;
bool alive, killed, finished, producer_asleep, consumer_asleep;
byte producer_on, consumer_on;
byte commits[TICKETS];
#ifdef RESTING
bool called = true, share[CELLS] = true;
byte from, changes;
#endif

#define cell(t) ((t) % CELLS)
#define free_turn(t) ((2 * ((t) / CELLS)) % TURNS)
#define full_turn(t) ((2 * ((t) / CELLS) + 1) % TURNS)

inline wake(c) {
  if
  :: producer_asleep && producer_on == c -> producer_asleep = false
  :: else
  fi;
  if
  :: consumer_asleep && consumer_on == c -> consumer_asleep = false
  :: else
  fi
}

proctype producer() {
  byte t, seen_turn;
  bool seen_sleeper, old;
  {
    do
    ::
#ifdef RESTING
       do /* may_claim; its sleep ends at every change, and now and then */
       :: called -> break
       :: !called && claimed >= TICKETS -> break
#ifndef BUG_RESTS_BEFORE_ITS_SHARES
       :: !called && claimed < from -> break
#endif
       od;
#endif
       atomic { t = claimed; claimed++ };
       if
       :: t >= TICKETS -> atomic { finished = true; break }
       :: else
       fi;
       do
       :: atomic { seen_turn = turn[cell(t)]; seen_sleeper = sleeper[cell(t)] };
          if
          :: seen_turn == free_turn(t) -> break
          :: else
          fi;
          if
          :: !seen_sleeper ->
             atomic {
               if
               :: turn[cell(t)] == seen_turn && !sleeper[cell(t)] -> sleeper[cell(t)] = true; old = true
               :: else -> old = false
               fi }
          :: else -> old = true
          fi;
          if
          :: old ->
             atomic {
               if
               :: turn[cell(t)] == seen_turn && sleeper[cell(t)] -> producer_asleep = true; producer_on = cell(t)
               :: else
               fi };
             !producer_asleep
          :: else
          fi
       od;
#ifdef RESTING
#ifdef BUG_SHARES_BY_WHO_IS_ACTIVE_NOW
       if
       :: !called -> goto commit
       :: else
       fi;
#else
       if
       :: !share[cell(t)] -> goto commit
       :: else
       fi;
#endif
#endif
       slot[cell(t)] = 255; /* half written */
#ifndef BUG_COMMITS_HALF_WRITTEN
       slot[cell(t)] = t;
#endif
commit:
       atomic { turn[cell(t)] = full_turn(t); old = sleeper[cell(t)]; sleeper[cell(t)] = false; commits[t]++ };
#ifdef BUG_COMMITS_HALF_WRITTEN
       slot[cell(t)] = t;
#endif
       if
       :: old -> atomic { wake(cell(t)) }
       :: else
       fi
    od
  } unless { atomic { killed -> killed = false; producer_asleep = false; alive = false } }
}

#ifdef RESTING
/* Before ticket n is allowed. */
inline allot(n) {
  if
  :: changes < CHANGES -> changes++; from = n; called = !called
  :: true
  fi;
  share[cell(n)] = called
}

inline pass(t) {
  if
  :: !share[cell(t)] ->
#ifdef BUG_PASSES_WITHOUT_COMPARING
     old = (claimed == t);
     if :: old -> claimed = t + 1 :: else fi;
#else
     atomic { old = (claimed == t); if :: old -> claimed++ :: else fi };
#endif
     if
     :: old ->
        atomic { turn[cell(t)] = full_turn(t); old = sleeper[cell(t)]; sleeper[cell(t)] = false; commits[t]++ };
        if
        :: old -> atomic { wake(cell(t)) }
        :: else
        fi
     :: else
     fi
  :: else
  fi
}
#endif

/* Not in the producer: an escape that may be taken is taken at once, so every death would come at the first step. */
active proctype killer() {
end:
  do
  :: atomic { deaths < DEATHS && alive && !killed && !finished -> deaths++; killed = true }
  :: finished || deaths == DEATHS -> break
  od
}

active proctype consumer() {
  byte t, r, seen_turn;
  bool seen_sleeper, old;
  atomic { alive = true; run producer() };
  do
  :: t == TICKETS -> break
  :: else ->
     do
     ::
ask:
#ifdef RESTING
        pass(t);
#endif
        atomic { seen_turn = turn[cell(t)]; seen_sleeper = sleeper[cell(t)] };
        if
        :: seen_turn == full_turn(t) -> break
        :: else
        fi;
        if
#ifdef BUG_TAKES_SILENCE_FOR_DEATH
        :: alive && !finished ->
#else
        :: !alive -> /* the system said so: its process is gone */
#endif
           r = t;
#ifndef BUG_STARTS_OVER_WHAT_IS_COMMITTED
           do
           :: r < t + CELLS && turn[cell(r)] == full_turn(r) -> r++
           :: else -> break
           od;
#endif
#ifndef BUG_GOES_ON_WHERE_THE_DEAD_WAS
           claimed = r;
#endif
           atomic { alive = true; run producer() };
           goto ask
        :: else
        fi;
        if
        :: !seen_sleeper ->
           atomic {
             if
             :: turn[cell(t)] == seen_turn && !sleeper[cell(t)] -> sleeper[cell(t)] = true; old = true
             :: else -> old = false
             fi }
        :: else -> old = true
        fi;
        if
        :: old ->
           atomic {
             if
             :: turn[cell(t)] == seen_turn && sleeper[cell(t)] -> consumer_asleep = true; consumer_on = cell(t)
             :: else
             fi };
           if
           :: !consumer_asleep
#ifndef BUG_SLEEPS_WITHOUT_LOOKING_AT_THE_PROCESS
           :: !alive -> consumer_asleep = false /* the slice of a wait ended, and the look at the process told */
#endif
           fi
        :: else
        fi
     od;
#ifdef RESTING
     assert(commits[t] == 1);
     if
     :: share[cell(t)] -> assert(slot[cell(t)] == t); assert(slot[cell(t)] == t)
     :: else
     fi;
#else
     assert(slot[cell(t)] == t);
     assert(slot[cell(t)] == t && commits[t] == 1);
#endif
     delivered++;
#ifdef RESTING
     allot(t + CELLS);
#endif
     atomic { turn[cell(t)] = free_turn(t + CELLS); old = sleeper[cell(t)]; sleeper[cell(t)] = false };
     if
     :: old -> atomic { wake(cell(t)) }
     :: else
     fi;
     t++
  od;
  assert(delivered == TICKETS)
}
