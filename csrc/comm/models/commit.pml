/* The commit decision of a data-parallel step (thread_meeting.h) for spin(1): every interleaving of RANKS ranks that take STEPS
 * steps, where one rank may die before any step of its own, and where, with STALLS, a rank that waits may lose its patience at
 * any moment. In a step a rank reads all parameters, comes to the meeting, settles the decision, writes the part that it owns,
 * and comes to the last meeting. Spin checks four claims. No two ranks read different decisions of a step. A rank writes
 * parameters only in a step that was committed. A rank that reads parameters finds those of one whole step; if a
 * rank has failed, it may find others instead, and then the counters say that the parameters are torn. No rank waits for
 * ever. Memory is sequentially consistent in this model; ThreadSanitizer checks the memory orders.
 *
 * holds: -DRANKS=2 -DSTEPS=3
 * holds: -DRANKS=2 -DSTEPS=2 -DSTALLS
 * holds: -DRANKS=3 -DSTEPS=2
 * finds: -DRANKS=2 -DSTEPS=2 -DSTALLS
 * finds: -DRANKS=2 -DSTEPS=3
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef STEPS
#define STEPS 2
#endif
#define OPEN 0
#define COMMIT 1
#define ABORT 2

byte progress[RANKS];     /* meetings that the rank has come to: two in each step */
bool gone[RANKS];         /* has left, or is dead */
byte word_number;         /* the decision is one word: the number of the meeting, */
byte word_outcome;        /* and its outcome */
byte known[STEPS + 1];    /* what ranks have read, for the check */
byte begun[RANKS];
byte done[RANKS];
byte parameter[RANKS];    /* how many updates the part that this rank owns has had */
bool anyone_died;

/* One rank may die before any step. */
inline step() {
  if
  :: !anyone_died -> d_step { anyone_died = true; gone[me] = true }; goto dead
  :: true
  fi
}

/* settle(wish): the first rank that gets here sets the word; all read what it has. */
inline settle(wish) {
#ifdef BUG_NO_COMPARE
  byte seen;
  seen = word_number;
  step();
  if
  :: seen != number -> d_step { word_number = number; word_outcome = wish }
  :: else
  fi;
#else
  d_step { if :: word_number != number -> word_number = number; word_outcome = wish :: else fi };
#endif
  step();
  d_step {
    outcome = (word_number == number -> word_outcome : ABORT);
    assert(known[turn] == OPEN || known[turn] == outcome);
    known[turn] = outcome
  }
}

/* Waits until all have come to meeting `number`; `met` is false if one has gone, or if patience has ended. */
inline await() {
  met = true; other = 0;
  do
  :: other == RANKS -> break
  :: other < RANKS ->
    if
    :: progress[other] >= number -> other++
    :: progress[other] < number && gone[other] -> met = false; break
#ifdef STALLS
    :: progress[other] < number -> met = false; break
#endif
    fi
  od
}

/* A rank that has failed: are the parameters of one step, or do the counters say that they are torn? A rank that is still in
 * its update shows that by its counters, too. */
inline look() {
  d_step {
    torn = false; whole = true; other = 0;
    do
    :: other < RANKS ->
      if :: begun[other] != begun[0] || done[other] != begun[0] -> torn = true :: else fi;
      if :: parameter[other] != parameter[0] -> whole = false :: else fi;
      other++
    :: else -> break
    od;
    assert(torn || whole)
  }
}

proctype rank(byte me) {
  byte number, other, outcome, turn, updates;
  bool met, torn, whole;
  turn = 1;
  do
  :: turn > STEPS -> break
  :: else ->
    other = 0;
    do  /* the forward pass */
    :: other < RANKS -> assert(parameter[other] == updates); other++; step()
    :: other == RANKS -> break
    od;
    number = 2 * turn - 1;
    progress[me] = number;
    step();
    await();
    if
    :: met -> settle(COMMIT)
    :: !met -> settle(ABORT)
    fi;
#ifdef BUG_IGNORE_DECISION
    outcome = (met -> COMMIT : ABORT);
#endif
    if
    :: outcome != COMMIT -> gone[me] = true; look(); goto dead
    :: else
    fi;
    step();
    begun[me] = turn;
    step();
#ifdef BUG_DONE_EARLY
    done[me] = turn;
    step();
#endif
    assert(known[turn] == COMMIT);
    parameter[me]++;
    step();
    done[me] = turn;
    number = 2 * turn;
    progress[me] = number;
    step();
#ifndef BUG_NO_LAST_MEETING
    await();
    if
    :: !met -> gone[me] = true; look(); goto dead
    :: else
    fi;
#endif
    updates++;
    turn++
  od;
  gone[me] = true;
dead:
  skip
}

init {
  byte r;
  atomic {
    r = 0;
    do
    :: r < RANKS -> run rank(r); r++
    :: else -> break
    od
  }
}
