/* The commit decision of a data-parallel step (thread_meeting.h, rank_meeting.h, and with THREADS hybrid_meeting.h) for spin(1):
 * every interleaving of RANKS ranks that take STEPS steps, where one rank may die before any step of its own, and where, with STALLS, a rank that waits may lose its patience at
 * any moment. In a step a rank reads all parameters, comes to the meeting, settles the decision, writes the part that it owns,
 * and comes to the last meeting. Spin checks four claims. No two ranks read different decisions of a step. A rank writes
 * parameters only in a step that was committed. A rank that reads parameters finds those of one whole step; if a
 * rank has failed, it may find others instead, and then the counters say that the parameters are torn. No rank waits for
 * ever. Memory is sequentially consistent in this model; ThreadSanitizer checks the memory orders.
 *
 * With THREADS, each THREADS ranks are replicas of one process. A process that is killed has gone when the last of its threads has
 * ended. The replicas come to their leader, the leader comes to the meeting of the processes and tells its replicas how it ended;
 * the counters of updates are those of a process. A leader that gives up decides for its process.
 *
 * holds: -DRANKS=2 -DSTEPS=3
 * holds: -DRANKS=2 -DSTEPS=2 -DSTALLS
 * holds: -DRANKS=3 -DSTEPS=2
 * holds: -DRANKS=4 -DTHREADS=2 -DSTEPS=1
 * holds: -DRANKS=4 -DTHREADS=2 -DSTEPS=1 -DSTALLS
 * holds: -DRANKS=3 -DTHREADS=2 -DSTEPS=2
 * finds: -DRANKS=2 -DSTEPS=2 -DSTALLS
 * finds: -DRANKS=2 -DSTEPS=3
 * finds: -DRANKS=4 -DTHREADS=2 -DSTEPS=1 -DSTALLS
 * finds: -DRANKS=3 -DTHREADS=2 -DSTEPS=2
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef STEPS
#define STEPS 2
#endif
#ifndef THREADS
#define THREADS 1
#endif
#define PROCESSES ((RANKS + THREADS - 1) / THREADS)
#define MINE (me / THREADS)
#define LEADS (me % THREADS == 0)
#define OPEN 0
#define COMMIT 1
#define ABORT 2

byte progress[PROCESSES]; /* meetings that the process has come to: two in each step */
bool gone[PROCESSES];     /* has left, or is dead */
#if THREADS > 1
byte came[RANKS];         /* meetings that the replica has come to */
byte told[PROCESSES];     /* meetings of which the leader has told its replicas, */
bool told_met[PROCESSES]; /* and whether the last of them took place */
bool killed[PROCESSES];   /* its threads end one by one */
byte ended[PROCESSES];    /* threads that have ended */
#endif
byte word_number;         /* the decision is one word: the number of the meeting, */
byte word_outcome;        /* and its outcome */
byte known[STEPS + 1];    /* what ranks have read, for the check */
byte begun[PROCESSES];
byte done[PROCESSES];
byte parameter[RANKS];    /* how many updates the part that this rank owns has had */
bool anyone_died;

/* One process may die before any step. */
inline step() {
#if THREADS > 1
  if
  :: killed[MINE] -> goto dead
  :: !killed[MINE] && !anyone_died -> d_step { anyone_died = true; killed[MINE] = true }; goto dead
  :: !killed[MINE]
  fi
#else
  if
  :: !anyone_died -> d_step { anyone_died = true; gone[me] = true }; goto dead
  :: true
  fi
#endif
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

/* Waits until all processes have come to meeting `number`; `met` is false if one has gone, or if patience has ended. */
inline await_all() {
  met = true; other = 0;
  do
  :: other == PROCESSES -> break
  :: other < PROCESSES ->
    if
    :: progress[other] >= number -> other++
    :: progress[other] < number && gone[other] -> met = false; break
#if THREADS > 1
    :: progress[other] < number && killed[MINE] -> goto dead
#endif
#ifdef STALLS
    :: progress[other] < number -> met = false; break
#endif
    fi
  od
}

#if THREADS > 1
/* The leader waits for its replicas. */
inline await_own() {
#ifdef BUG_LEADER_ALONE
  skip
#else
  other = me + 1;
  do
  :: other == RANKS || other / THREADS != MINE -> break
  :: else -> if :: came[other] >= number -> other++ :: killed[MINE] -> goto dead fi
  od
#endif
}

/* A replica waits for its leader's word. */
inline await_leader() {
  if
  :: told[MINE] >= number -> met = told_met[MINE]
  :: killed[MINE] -> goto dead
  fi
}
#endif

/* Comes to a meeting, and waits for its end. `ends`: it is the last one of an update, before which the part of the process is
 * done. */
inline come(ends) {
#if THREADS > 1
  came[me] = number;
  step();
  if
  :: LEADS ->
    await_own();
    if :: ends -> done[MINE] = turn; step() :: else fi;
#ifdef BUG_TOLD_EARLY
    d_step { told_met[MINE] = true; told[MINE] = number };
    step();
#endif
    progress[MINE] = number;
    step();
    await_all();
    if
    :: !met && !ends -> settle(ABORT); met = (outcome == COMMIT)
    :: else
    fi;
    step();
    d_step { told_met[MINE] = met; told[MINE] = number }
  :: !LEADS -> await_leader()
  fi
#else
  if :: ends -> done[me] = turn :: else fi;
  progress[me] = number;
  step();
  await_all()
#endif
}

/* A rank that has failed: are the parameters of one step, or do the counters say that they are torn? A rank that is still in
 * its update shows that by its counters, too. */
inline look() {
  d_step {
    torn = false; whole = true; other = 0;
    do
    :: other < RANKS ->
      if :: begun[other / THREADS] != begun[0] || done[other / THREADS] != begun[0] -> torn = true :: else fi;
      if :: parameter[other] != parameter[0] -> whole = false :: else fi;
      other++
    :: else -> break
    od;
    assert(torn || whole)
  }
}

inline failed() {
#if THREADS == 1
  gone[me] = true;
  look()
#else
  skip  /* the last thread of the process looks */
#endif
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
    come(false);
#if THREADS > 1
    if
    :: met -> settle(COMMIT)
    :: !met -> outcome = ABORT  /* the leader has settled it */
    fi;
#else
    if
    :: met -> settle(COMMIT)
    :: !met -> settle(ABORT)
    fi;
#endif
#ifdef BUG_IGNORE_DECISION
    outcome = (met -> COMMIT : ABORT);
#endif
    if
    :: outcome != COMMIT -> failed(); goto dead
    :: else
    fi;
    step();
    begun[MINE] = turn;
    step();
#ifdef BUG_DONE_EARLY
    done[MINE] = turn;
    step();
#endif
    assert(known[turn] == COMMIT);
    parameter[me]++;
    step();
    number = 2 * turn;
#ifdef BUG_NO_LAST_MEETING
    done[MINE] = turn;
    progress[MINE] = number;
    step();
#else
    come(true);
    if
    :: !met -> failed(); goto dead
    :: else
    fi;
#endif
    updates++;
    turn++
  od;
#if THREADS == 1
  gone[me] = true;
#endif
dead:
#if THREADS > 1
  atomic {
    ended[MINE]++;
    if
    :: ended[MINE] == (RANKS - MINE * THREADS < THREADS -> RANKS - MINE * THREADS : THREADS) ->
      gone[MINE] = true;
      if :: !killed[MINE] -> look() :: else fi
    :: else
    fi
  }
#endif
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
