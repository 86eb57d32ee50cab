/* The protocol of csrc/loader/ring.h: producer threads that share one ring, its consumer, and a thread that closes it.
 *
 * -DCLOSING: a thread closes it. -DHELPING: the consumer fills too, claim_if_free. -DVARYING: it allows tickets one by
 * one, now more of them ahead and now fewer: open(0, 0) and allow.
 *
 * Checked over all interleavings: every ticket is delivered once and in order, no slot is written while it is read or
 * written by another, no slot is delivered half written, and no process waits for ever (an invalid end state).
 * A cell's word is modelled as its three parts; each atomic block is one instruction of the implementation. Deadlines
 * are left out: they only end waits that would otherwise go on.
 *
 * For scripts/check_model.sh:
 * holds: -DPRODUCERS=3
 * holds: -DCLOSING -DPRODUCERS=2
 * holds: -DHELPING -DPRODUCERS=2
 * holds: -DHELPING -DCLOSING -DPRODUCERS=1
 * holds: -DCELLS=3 -DTICKETS=7 -DPRODUCERS=2
 * holds: -DVARYING -DPRODUCERS=2
 * holds: -DVARYING -DCELLS=3 -DTICKETS=7 -DPRODUCERS=1
 * holds: -DVARYING -DHELPING -DPRODUCERS=1
 * holds: -DVARYING -DCLOSING -DPRODUCERS=1
 * finds: -DPRODUCERS=2 -DTICKETS=4
 * finds BUG_CLOSES_WITHOUT_WAKING: -DPRODUCERS=2 -DTICKETS=4 -DCLOSING
 * finds BUG_CLAIMS_WHAT_IS_NOT_FREE: -DPRODUCERS=2 -DTICKETS=4 -DHELPING
 * finds BUG_HELPS_WITHOUT_COMPARING: -DPRODUCERS=2 -DTICKETS=4 -DHELPING
 * finds BUG_ALLOWS_ONE_TOO_MANY: -DPRODUCERS=2 -DTICKETS=4 -DVARYING
 */
#ifndef CELLS
#define CELLS 2
#endif
#ifndef PRODUCERS
#define PRODUCERS 3
#endif
#ifndef TICKETS
#define TICKETS 5
#endif
#define TURNS 4 /* so that turns wrap within the run */
#define EVERYONE 5

#ifdef VARYING
byte turn[CELLS] = TURNS - 1; /* full on the lap before the first: not free yet */
#else
byte turn[CELLS];
#endif
bool sleeper[CELLS], closed[CELLS];
byte slot[CELLS], writers[CELLS], readers[CELLS];
byte claimed, delivered;
bool asleep[EVERYONE];
byte sleeps_on[EVERYONE];

#define cell(t) ((t) % CELLS)
#define free_turn(t) ((2 * ((t) / CELLS)) % TURNS)
#define full_turn(t) ((2 * ((t) / CELLS) + 1) % TURNS)

inline wake(c) {
  for (w : 0 .. EVERYONE - 1) {
    if
    :: asleep[w] && sleeps_on[w] == c -> asleep[w] = false
    :: else
    fi
  }
  w = 0
}

/* One compare-and-swap that sets the turn and clears the sleeper bit, then, as a step of its own, the wake. */
inline advance(t, to) {
#ifdef BUG_STORES_WITHOUT_COMPARING
  old = sleeper[cell(t)];
  atomic { turn[cell(t)] = to; sleeper[cell(t)] = false }
#else
  atomic { turn[cell(t)] = to; old = sleeper[cell(t)]; sleeper[cell(t)] = false }
#endif
#ifdef BUG_FORGETS_TO_WAKE
  old = false;
#endif
  if
  :: old -> atomic { wake(cell(t)) }
  :: else
  fi
}

/* Ends with result = true when the turn came, false when the ring was closed first. */
inline wait_for(t, wanted) {
  do
  :: atomic { /* the load */
       seen_turn = turn[cell(t)]; seen_sleeper = sleeper[cell(t)]; seen_closed = closed[cell(t)] };
     if
     :: seen_turn == wanted && !(seen_closed && wanted % 2 == 0) -> result = true; break
     :: seen_closed && !(seen_turn == wanted && wanted % 2 == 1) -> result = false; break
     :: else
     fi;
     if
     :: !seen_sleeper ->
        atomic { /* the compare-and-swap that sets the bit */
          if
          :: turn[cell(t)] == seen_turn && !sleeper[cell(t)] && closed[cell(t)] == seen_closed ->
             sleeper[cell(t)] = true; old = true
          :: else -> old = false
          fi }
     :: else -> old = true
     fi;
     if
     :: old ->
        atomic { /* futex: sleeps only if the word is what we saw */
          if
#ifdef BUG_SLEEPS_WITHOUT_COMPARING
          :: true ->
#else
          :: turn[cell(t)] == seen_turn && sleeper[cell(t)] && closed[cell(t)] == seen_closed ->
#endif
             asleep[_pid] = true; sleeps_on[_pid] = cell(t)
          :: else
          fi };
        !asleep[_pid]
     :: else
     fi
  od;
  seen_turn = 0; seen_sleeper = false; seen_closed = false; old = false
}

active [PRODUCERS] proctype producer() {
  byte t, seen_turn, w;
  bool seen_sleeper, seen_closed, old, result;
  do
  ::
#ifdef BUG_CLAIMS_IN_TWO_STEPS
     t = claimed;
     claimed = t + 1;
#else
     atomic { t = claimed; claimed++ };
#endif
     if
     :: t >= TICKETS -> break
     :: else
     fi;
#ifndef BUG_FILLS_UNRESERVED
     wait_for(t, free_turn(t));
     if
     :: !result -> break
     :: else
     fi;
#endif
     atomic { assert(writers[cell(t)] == 0 && readers[cell(t)] == 0); writers[cell(t)]++; slot[cell(t)] = 255 };
#ifdef BUG_COMMITS_HALF_WRITTEN
     advance(t, full_turn(t));
#endif
     atomic { assert(slot[cell(t)] == 255); slot[cell(t)] = t; writers[cell(t)]-- };
#ifndef BUG_COMMITS_HALF_WRITTEN
     advance(t, full_turn(t))
#endif
  od
}

/* claim_if_free, then fill and commit, by the consumer, who must never wait for a cell that it would have to free. */
inline help() {
  seen_claimed = claimed;
  if
  :: seen_claimed < TICKETS ->
     atomic {
#ifdef BUG_CLAIMS_WHAT_IS_NOT_FREE
       old = true
#else
       old = (turn[cell(seen_claimed)] == free_turn(seen_claimed) && !closed[cell(seen_claimed)])
#endif
     };
     if
     :: old ->
#ifdef BUG_HELPS_WITHOUT_COMPARING
        claimed = seen_claimed + 1;
#else
        atomic { old = (claimed == seen_claimed); if :: old -> claimed++ :: else fi };
#endif
        if
        :: old ->
           atomic {
             assert(writers[cell(seen_claimed)] == 0 && readers[cell(seen_claimed)] == 0);
             writers[cell(seen_claimed)]++;
             slot[cell(seen_claimed)] = 255
           };
           atomic {
             assert(slot[cell(seen_claimed)] == 255);
             slot[cell(seen_claimed)] = seen_claimed;
             writers[cell(seen_claimed)]--
           };
           advance(seen_claimed, full_turn(seen_claimed))
        :: else
        fi
     :: else
     fi
  :: else
  fi;
  seen_claimed = 0; old = false
}

/* The ticket that is next, and any number of further ones that the cells can take. */
inline allow_some() {
  do
#ifdef BUG_ALLOWS_ONE_TOO_MANY
  :: allowed <= t + CELLS ->
#else
  :: allowed < t + CELLS ->
#endif
     advance(allowed, free_turn(allowed));
     allowed++
  :: allowed > t -> break
  od
}

active proctype consumer() {
  byte t, seen_turn, seen_claimed, allowed, w;
  bool seen_sleeper, seen_closed, old, result;
  do
  :: t == TICKETS -> break
  :: else ->
#ifdef VARYING
     allow_some();
#endif
#ifdef HELPING
     do
     :: turn[cell(t)] != full_turn(t) && claimed < TICKETS && !closed[0] -> help()
     :: break
     od;
#endif
     wait_for(t, full_turn(t));
     if
     :: !result -> break
     :: else
     fi;
     atomic { assert(writers[cell(t)] == 0 && slot[cell(t)] == t); readers[cell(t)]++ };
#ifdef BUG_RELEASES_BEFORE_READING
     advance(t, free_turn(t + CELLS));
#endif
     atomic { assert(writers[cell(t)] == 0 && slot[cell(t)] == t); readers[cell(t)]--; delivered++ };
#if !defined(BUG_RELEASES_BEFORE_READING) && !defined(VARYING)
     advance(t, free_turn(t + CELLS));
#endif
     t++
  od;
#ifndef CLOSING
  assert(delivered == TICKETS)
#endif
}

#ifdef CLOSING
active proctype closer() {
  byte c, w;
  bool old;
  do
  :: c < CELLS ->
     atomic { closed[c] = true; old = sleeper[c] };
#ifdef BUG_CLOSES_WITHOUT_WAKING
     old = false;
#endif
     if
     :: old -> atomic { wake(c) }
     :: else
     fi;
     c++
  :: else -> break
  od
}
#endif
