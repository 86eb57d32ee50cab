#include "comm/rounds.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "comm/exit_status.h"
#include "comm/stack_teller.h"

namespace gradring {

namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A wait spins for about four microseconds, then yields for kYielding, and then sleeps in slices of kSlice, between which it checks
// whether its peers are alive. Where a hypervisor runs the machine, a sleep and its wake-up take 30 to 60 microseconds. A rank that
// wakes late comes late to the next round, so the others must yield for longer than that: else they sleep there in turn, and each
// step of a training is late for ever. A wait of 10 ms costs less than half a percent of a core: slices are long, and a wait that
// follows one of kLongWait yields for kYieldingAgain only, because a rank that has come late often comes late again.
constexpr uint32_t kSpins = 100;
constexpr microseconds kYielding{100}, kYieldingAgain{2};
constexpr milliseconds kLongWait{5};
constexpr milliseconds kThreadGrace{300};  // how long to wait for another thread to take over
constexpr milliseconds kMostAhead{1500};   // a rank is asked for its stack at most this long before a deadline

// The time at which a rank is asked for its stack: a quarter of the timeout before the deadline, so that the answer is
// there in time.
int64_t asks_from(int64_t patience, std::chrono::nanoseconds timeout) noexcept {
  return patience - std::clamp<std::chrono::nanoseconds>(timeout / 4, {}, kMostAhead).count();
}

}  // namespace

// What one wait has asked the rank that it waits for.
struct Rounds::Inquiry {
  StackQuestion question;
  int64_t patience = 0;  // the deadline that was near when the rank was asked; if it has moved, the rank is asked again
  int rank = -1;
};

struct Rounds::Wait {
  std::atomic<uint32_t>& word;
  uint32_t target;
  bool changed;  // true: wait until it differs from target; false: until it is target
  const Awaited* awaited;
  size_t count;

  bool over(uint32_t now) const noexcept { return (now >> 1 == target) != changed; }
  bool over() const noexcept { return over(word.load(std::memory_order_acquire)); }
};

Rounds::Rounds(std::shared_ptr<ControlBlock> control, std::shared_ptr<Segments> segments, int rank,
               std::vector<int> origins, std::vector<int> pidfds, std::chrono::nanoseconds timeout)
    : control_(std::move(control)),
      segments_(std::move(segments)),
      rank_(rank),
      size_(control_->ranks()),
      origins_(std::move(origins)),
      pidfds_(std::move(pidfds)),
      exposure_(*control_, rank),
      timeout_(timeout),
      // If there are more ranks than cores, a rank that spins would keep another rank from running.
      spins_(size_ <= sysconf(_SC_NPROCESSORS_ONLN) ? kSpins : 1),
      scratch_(new std::byte[std::max(control_->stage_bytes(), kLeastScratch)]) {
  segments_->add(&exposure_);
  control_->state(rank_).presence.store(Presence::kPresent, std::memory_order_release);
}

Rounds::~Rounds() {
  segments_->remove(&exposure_);
  for (const int fd : pidfds_)
    if (fd >= 0) close(fd);
}

void Rounds::leave() noexcept {
  RankState& mine = control_->state(rank_);
  mine.presence.store(Presence::kClosed, std::memory_order_release);
  mine.questions.fetch_or(kTellsNoMore, std::memory_order_acq_rel);
  futex_wake_all(mine.questions, Scope::kProcesses);
}

void Rounds::give_up() noexcept {
  leaving_.store(true, std::memory_order_relaxed);
  ring_own_bell();
}

void Rounds::abandon() noexcept {
  control_->fail({Failure::Reason::kLeft, rank_, control_->state(rank_).entered.load(std::memory_order_relaxed)});
  give_up();
}

// The deadline of ranks that wait for this one starts again when its activity ends.
void Rounds::set_activity(Activity activity, std::chrono::nanoseconds patience, bool passing) noexcept {
  RankState& mine = control_->state(rank_);
  if (activity == Activity::kUnknown) patience = timeout_;
  const int64_t now = monotonic_ns();
  const bool finite = patience.count() < INT64_MAX - now;
  mine.patience_until_ns.store(patience.count() <= 0 ? 0
                               : finite              ? now + patience.count()
                                                     : INT64_MAX,
                               std::memory_order_release);
  mine.activity.store(activity, std::memory_order_release);
  passing_.store(passing, std::memory_order_relaxed);
}

Code Rounds::begin(const Call& call, Waiter* waiter) noexcept {
  if (fault_->code != Code::kOk) [[unlikely]]
    return fault_->code;
  waiter_ = waiter;
  deadline_ = kNoDeadline;
  current_.agreement = call.agreement;
  ++current_.sequence;
  if (passing_.load(std::memory_order_relaxed)) [[unlikely]]
    set_activity(Activity::kUnknown, {}, false);
  RankState& mine = control_->state(rank_);
  mine.entered_kind.store(call.agreement.kind, std::memory_order_relaxed);
  mine.entered.store(current_.sequence, std::memory_order_relaxed);
  if (const Failure failure = control_->failure(); failure.reason != Failure::Reason::kNone) [[unlikely]]
    return adopt(failure, current_);
  failpoint("begin", rank_);
  return Code::kOk;
}

Code Rounds::await_all() noexcept {
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_) continue;
    if (const Code code = await(rank); code != Code::kOk) return code;
  }
  return Code::kOk;
}

Code Rounds::meet(const Call& call) noexcept {
  control_->cell(rank_, round_).set(call.agreement);
  failpoint("before publish", rank_);
  publish();
  failpoint("after publish", rank_);
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_) continue;
    if (const Code code = await(rank); code != Code::kOk) return code;
    const Agreement theirs = cell(rank).agreement();
    if (!(theirs == call.agreement)) [[unlikely]]
      return mismatch(rank, theirs, current_);
  }
  return Code::kOk;
}

Code Rounds::pass() noexcept {
  next();
  publish();
  return await_all();
}

Code Rounds::after_access(const Operation& operation) noexcept {
  load_barrier();  // the access comes before the look
  const Failure failure = control_->failure();
  return failure.reason == Failure::Reason::kNone ? Code::kOk : adopt(failure, operation);
}

Code Rounds::pass_after_access() noexcept {
  if (const Code code = after_access(current_); code != Code::kOk) [[unlikely]]
    return code;
    // The barrier between expose and this look is the exchange by which this rank has published where its arrays lie: on x86 it is a
    // full one. If this rank has lost them unseen, it does not come to the last round, so no rank succeeds.
#if !defined(__x86_64__)
  full_barrier();
#endif
  if (exposure_.exposed() && segments_->own.detached()) [[unlikely]]
    return fail(Failure::Reason::kLost, rank_);
  if (const Code code = pass(); code != Code::kOk) return code;
  // Until now, other ranks may have written to this rank's arrays where it does not see them any more.
  if (exposure_.exposed() && segments_->own.detached()) [[unlikely]]
    return after_access(current_);
  return Code::kOk;
}

Code Rounds::await_slowly(Cell& other, int rank) noexcept {
  const Awaited awaited{rank, &deadline_, &current_};
  return wait({other.word, round_ & kRoundMask, false, &awaited, 1});
}

void Rounds::post(std::atomic<uint32_t>& word, uint32_t round, int to) noexcept {
  publish_word(word, round);
  ring(to);
}

void Rounds::ring_own_bell() noexcept { ring(rank_); }

void Rounds::ring(int rank) noexcept {
  std::atomic<uint32_t>& bell = control_->doorbell(rank).word;
  if (bell.fetch_add(2, std::memory_order_acq_rel) & 1) {
    bell.fetch_and(~uint32_t{1}, std::memory_order_acq_rel);
    futex_wake_all(bell, Scope::kProcesses);
  }
}

Code Rounds::await_bell(uint32_t seen, const std::vector<Awaited>& awaited) noexcept {
  const Wait bell{control_->doorbell(rank_).word, seen, true, awaited.data(), awaited.size()};
  for (uint32_t spin = 0; spin < spins_; ++spin) {
    if (bell.over()) return Code::kOk;
    cpu_relax();
  }
  return wait(bell);
}

Code Rounds::wait(const Wait& wait) noexcept {
  if (waiter_) waiter_->before_sleep();
  const Deadline begin = Clock::now();
  const microseconds yielding = std::exchange(waited_long_, false) ? kYieldingAgain : kYielding;
  do {
    sched_yield();
    for (int look = 0; look < 4; ++look) {
      if (wait.over()) return Code::kOk;
      cpu_relax();
    }
  } while (Clock::now() - begin < yielding);
  for (size_t i = 0; i < wait.count; ++i) {
    Deadline& deadline = *wait.awaited[i].deadline;
    if (deadline == kNoDeadline)
      deadline = timeout_ < Deadline::max() - begin ? begin + timeout_ : kNoDeadline - milliseconds(1);
  }
  Inquiry inquiry;
  for (;;) {
    Deadline until = kNoDeadline;
    if (const Code code = look_after(wait, &inquiry, &until); code != Code::kOk) return code;
    uint32_t word = wait.word.load(std::memory_order_acquire);
    if (wait.over(word)) return Code::kOk;
    if (!(word & 1) &&
        !wait.word.compare_exchange_strong(word, word | 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    futex_wait(wait.word, word | 1, std::min(until, Clock::now() + kSlice), Scope::kProcesses);
    if (wait.over()) {
      waited_long_ = Clock::now() - begin >= kLongWait;
      return Code::kOk;
    }
  }
}

// Whether a rank has not come to this rank's round.
bool Rounds::lacks(int rank) noexcept {
  return control_->cell(rank, round_).word.load(std::memory_order_acquire) >> 1 != (round_ & kRoundMask);
}

// Why a rank will never come, or kNone.
Failure::Reason Rounds::end_of(int rank, int64_t now_ns) noexcept {
  RankState& peer = control_->state(rank);
  const Presence presence = peer.presence.load(std::memory_order_acquire);
  if (presence == Presence::kClosed) return Failure::Reason::kClosed;
  if (presence == Presence::kThreadEnded &&
      now_ns - peer.ended_ns.load(std::memory_order_acquire) >= std::chrono::nanoseconds(kThreadGrace).count()) {
    return Failure::Reason::kThreadEnded;
  }
  return exited(rank) ? Failure::Reason::kExited : Failure::Reason::kNone;
}

// Whether it makes sense to continue waiting. A round needs all ranks, so a rank that waits for one of them looks after all that have
// not come. A peer may die after it has done its part, so this reads the word once more before it reports a death.
Code Rounds::look_after(const Wait& wait, Inquiry* inquiry, Deadline* until) noexcept {
  using Reason = Failure::Reason;
  const Awaited* first = wait.awaited;
  const auto blame = [&](Reason reason, int rank, const Operation& operation, bool told = false) {
    return adopt(control_->fail({reason, rank, operation.sequence, told}), operation);
  };
  if (const Failure failure = control_->failure(); failure.reason != Reason::kNone) {
    for (size_t i = 0; i < wait.count; ++i)
      if (wait.awaited[i].rank == failure.rank) first = wait.awaited + i;
    return wait.over() ? Code::kOk : adopt(failure, *first->operation);
  }
  const int64_t now_ns = Clock::now().time_since_epoch().count();
  if (wait.changed) {
    for (size_t i = 0; i < wait.count; ++i) {
      const Awaited& each = wait.awaited[i];
      const Reason end = end_of(each.rank, now_ns);
      if (end != Reason::kNone) return wait.over() ? Code::kOk : blame(end, each.rank, *each.operation);
    }
  } else {
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_ || !lacks(rank)) continue;
      const Reason end = end_of(rank, now_ns);
      if (end != Reason::kNone && lacks(rank)) return blame(end, rank, *first->operation);
    }
  }
  if (leaving_.load(std::memory_order_relaxed) || (waiter_ && waiter_->interrupted()))
    return wait.over() ? Code::kOk : blame(Reason::kLeft, rank_, *first->operation);
  // The rank whose time ends first. A rank that said that it will take long has that time.
  int64_t patience = INT64_MAX;
  for (size_t i = 0; i < wait.count; ++i) {
    const Awaited& each = wait.awaited[i];
    const int64_t its = std::max<int64_t>(each.deadline->time_since_epoch().count(),
                                          control_->state(each.rank).patience_until_ns.load(std::memory_order_acquire));
    if (its >= patience) continue;
    patience = its;
    first = &each;
  }
  const int64_t asking = asks_from(patience, timeout_);
  if (now_ns >= asking && (inquiry->patience != patience || inquiry->rank != first->rank)) {
    inquiry->patience = patience;
    inquiry->rank = first->rank;
    inquiry->question.ask(*control_, first->rank);
  }
  if (now_ns >= patience) {
    if (wait.over()) return Code::kOk;
    return blame(Reason::kStalled, first->rank, *first->operation, inquiry->question.answered(*control_, first->rank));
  }
  *until = Deadline(std::chrono::nanoseconds(now_ns < asking ? asking : patience));
  return Code::kOk;
}

bool Rounds::exited(int rank) noexcept {
  const int pidfd = pidfds_.empty() ? -1 : pidfds_[static_cast<size_t>(rank)];
  pollfd poller{pidfd, POLLIN, 0};
  return pidfd >= 0 && poll(&poller, 1, 0) == 1 && (poller.revents & (POLLIN | POLLHUP));
}

Code Rounds::fail(Failure::Reason reason, int rank, const Operation& operation) noexcept {
  return adopt(control_->fail({reason, rank, operation.sequence}), operation);
}

Code Rounds::mismatch(int other, const Agreement& theirs, const Operation& operation) noexcept {
  fault_->mine = operation.agreement;
  fault_->theirs = theirs;
  fault_->other = other;
  return fail(Failure::Reason::kMismatch, rank_, operation);
}

Code Rounds::adopt(const Failure& failure, const Operation& operation) noexcept {
  if (fault_->code != Code::kOk) return fault_->code;  // another message of this rank has met the failure before
  using Reason = Failure::Reason;
  fault_->failure = failure;
  const Collective kind = operation.agreement.kind;
  fault_->kind = kind;
  fault_->sequence = operation.sequence;
  fault_->timeout = std::chrono::duration<double>(timeout_).count();
  if (failure.rank >= 0 && failure.rank < size_) {
    RankState& culprit = control_->state(failure.rank);
    fault_->activity = culprit.activity.load(std::memory_order_acquire);
    fault_->peer_entered = culprit.entered.load(std::memory_order_relaxed);
    fault_->peer_kind = culprit.entered_kind.load(std::memory_order_relaxed);
    if (failure.reason == Reason::kStalled && failure.rank < static_cast<int>(pidfds_.size()))
      fault_->stopped = is_stopped(pidfds_[static_cast<size_t>(failure.rank)]);
    if (failure.told && failure.rank != rank_) fault_->stack = told_stack(*control_, failure.rank);
  }
  switch (failure.reason) {
    case Reason::kStalled: fault_->code = Code::kPeerStalled; break;
    case Reason::kMismatch: fault_->code = Code::kMismatch; break;
    case Reason::kMemory: fault_->code = Code::kOutOfMemory; break;
    case Reason::kLost:
    case Reason::kLeft: fault_->code = failure.rank == rank_ ? Code::kInterrupted : Code::kPeerDied; break;
    default: fault_->code = Code::kPeerDied; break;
  }
  if (failure.reason == Reason::kExited && failure.rank < static_cast<int>(pidfds_.size())) {
    fault_->exit_status = exit_status_of(pidfds_[static_cast<size_t>(failure.rank)]);
  }
  // A rank that learns of a mismatch from another one reports what that rank called, and what it called itself.
  if (failure.reason == Reason::kMismatch && fault_->other < 0 && failure.rank != rank_) {
    const Cell& other = control_->cell(failure.rank, round_);
    const bool meets = kind != Collective::kSend && kind != Collective::kReceive;
    fault_->whole = meets && other.word.load(std::memory_order_acquire) >> 1 == (round_ & kRoundMask);
    fault_->mine = operation.agreement;
    fault_->theirs = fault_->whole ? other.agreement() : Agreement{fault_->peer_kind};
    fault_->other = failure.rank;
  }
  return fault_->code;
}

}  // namespace gradring
