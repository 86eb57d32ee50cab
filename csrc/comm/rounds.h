// Rounds: one rank's membership of a group, and the meetings that every collective is made of. protocol.h declares the
// shared variables, and gives the reasons for their orders:
//
// | variable   | writer        | readers         | order             | why                                          |
// |------------|---------------|-----------------|-------------------|----------------------------------------------|
// | Cell::word | publish, post | await, wait     | exchange acq_rel, | what was written before is visible           |
// |            |               |                 | load acquire      |                                              |
// | bell       | ring          | await_bell      | add acq_rel,      | a mailbox's word came before it              |
// |            |               |                 | load acquire      |                                              |
// | passing_   | set_activity, | begin           | relaxed           | a hint: the activity ends with an operation  |
// |            | begin         |                 |                   |                                              |
// | leaving_   | give_up       | a wait          | relaxed           | the wait ends by leaving the operation       |
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/control.h"
#include "comm/fences.h"
#include "comm/operand.h"
#include "comm/protocol.h"
#include "comm/segment.h"
#include "runtime/failpoint.h"
#include "runtime/forks.h"
#include "runtime/status.h"
#include "runtime/wait.h"

namespace gradring {

// Prefetches a cache line that this core will write, which takes the line away from other cores.
inline void prefetch_to_write(const void* address) noexcept {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#else
  __builtin_prefetch(address, 1);
#endif
}

// One operation as a rank calls it.
struct Call {
  Agreement agreement;
  int peer = 0;         // the other rank of a send or recv
  CommOperand in, out;  // all_gather: out has `ranks` times as many elements; reduce_scatter: in has
  double weight = 0;    // this rank's weight, if agreement.weighted
};

// An operation, for messages, and its number among those of the group, from 1.
struct Operation {
  Agreement agreement;
  uint32_t sequence = 0;
};

// A rank that an operation waits for, and until when. The deadline is set at the first long wait.
struct Awaited {
  int rank;
  Deadline* deadline;
  const Operation* operation;
};

// What a caller does during a long wait. The waiting thread calls these functions.
class Waiter {
 public:
  virtual ~Waiter() = default;
  virtual void before_sleep() noexcept {}  // called once or more per wait
  // Called before a wait sleeps, and after each slice of its sleep. Returns whether to abandon the operation.
  virtual bool interrupted() noexcept { return false; }
};

// Why an operation failed, for messages and exceptions.
struct GroupFault {
  Code code = Code::kOk;
  Failure failure;
  Collective kind = Collective::kNone;
  uint32_t sequence = 0;
  Agreement mine, theirs;  // After a mismatch, these are the two calls that differ.
  int other = -1;          // the rank that called `theirs`
  bool whole = true;       // false: of `theirs` the kind alone is known
  int exit_status = -1;    // how a process ended, in the form of wait(2); -1: unknown
  Activity activity = Activity::kUnknown;
  uint32_t peer_entered = 0;  // how many operations the rank at fault has begun
  Collective peer_kind = Collective::kNone;
  double timeout = 0;
  bool stopped = false;  // a signal or a debugger had stopped the process of the rank that stalled
  std::string stack;     // the Python stack of the rank at fault, if that rank wrote it down

  std::string message(int rank) const;
};

class Rounds {
 public:
  // Takes over the pidfds; -1 stands for a thread of this process, or for this rank. origins[rank] is its index in
  // `segments`.
  Rounds(std::shared_ptr<ControlBlock> control, std::shared_ptr<Segments> segments, int rank, std::vector<int> origins,
         std::vector<int> pidfds, std::chrono::nanoseconds timeout);
  ~Rounds();
  Rounds(const Rounds&) = delete;
  Rounds& operator=(const Rounds&) = delete;

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  ControlBlock& control() noexcept { return *control_; }
  const std::shared_ptr<ControlBlock>& shared_control() const noexcept { return control_; }
  const std::vector<int>& origins() const noexcept { return origins_; }
  const std::shared_ptr<Segments>& segments() const noexcept { return segments_; }
  const std::vector<int>& pidfds() const noexcept { return pidfds_; }
  std::chrono::nanoseconds timeout() const noexcept { return timeout_; }

  // Marks this rank as ended. Ranks that wait for it find that at their next look. Wakes the thread that tells this rank's stack.
  void leave() noexcept;
  // Any thread may call this: this rank's waits, from now on, end within a slice, by leaving the operation.
  void give_up() noexcept;
  // The same, for an interrupt that no wait has seen: the group fails even if those waits end in time, so that it does not depend
  // on the peers' moment whether it can go on. Any thread may call this.
  void abandon() noexcept;

  // What this rank does outside of operations. With `passing`, the activity ends when the next operation begins.
  void set_activity(Activity activity, std::chrono::nanoseconds patience, bool passing) noexcept;

  // Every operation calls this first.
  Code begin(const Call& call, Waiter* waiter) noexcept;

  // This rank's cell of the next round. Fill it, then call publish.
  Cell& next() noexcept { return control_->cell(rank_, ++round_); }
  void publish() noexcept {
    publish_word(control_->cell(rank_, round_).word, round_);
    // The others have usually read this rank's other cell by now, which is that of the round before. The prefetch takes it back while
    // this core waits anyway, so that its next publish is faster.
    prefetch_to_write(&control_->cell(rank_, round_ + 1));
  }
  const Cell& cell(int rank) noexcept { return control_->cell(rank, round_); }
  // The half of a rank's staging memory in use. Call end_turn, which moves on to the other half, after reading it.
  // `ahead`: so many turns later.
  std::byte* stage(int rank, uint32_t ahead = 0) noexcept { return control_->stage(rank, turn_ + ahead); }
  void end_turn(uint32_t turns = 1) noexcept { turn_ += turns; }
  // Private memory as large as one half of the staging memory, for collectives and messages.
  std::byte* scratch() noexcept { return scratch_.get(); }
  static constexpr size_t kLeastScratch = size_t{64} << 10;
  Code await(int rank) noexcept {
    Cell& other = control_->cell(rank, round_);
    for (uint32_t spin = 0; spin < spins_; ++spin) {
      if (other.word.load(std::memory_order_acquire) >> 1 == (round_ & kRoundMask)) return Code::kOk;
      cpu_relax();
    }
    return await_slowly(other, rank);
  }
  Code await_all() noexcept;

  // Runs a round that publishes what this rank calls, and where its operands lie. Fails unless all ranks call the
  // same. The caller fills the payload of next() before.
  Code meet(const Call& call) noexcept;
  // Runs a round without a payload: it ends when every rank has come so far.
  Code pass() noexcept;
  // The round with which an operation ends that reaches other ranks' arrays. Fails if the group has failed before this rank's last
  // access to them: their memory may have been another by then.
  Code pass_after_access() noexcept;
  // Returns the group's failure, if it has one, to an operation that has just read or written another rank's array.
  Code after_access(const Operation& operation) noexcept;

  // An operation that gives other ranks offsets of this rank's arrays calls expose before, and conceal when it ends.
  void expose() noexcept { exposure_.expose(); }
  void conceal() noexcept { exposure_.conceal(); }
  // The receiver of a message may succeed as soon as the offset is published, so a full barrier comes before the look at the segment.
  void expose_to_receiver() noexcept {
    expose();
    full_barrier();
  }

  // Mailboxes have rounds of their own, and one bell per rank, which wakes a rank that waits for any of its mailboxes.
  void post(std::atomic<uint32_t>& word, uint32_t round, int to) noexcept;
  uint32_t bell() noexcept { return control_->doorbell(rank_).word.load(std::memory_order_acquire) >> 1; }
  void ring_own_bell() noexcept;
  // Waits until the bell's value is no longer `seen`. The death of one of the awaited ranks ends the wait, and so does the first of
  // their deadlines that passes.
  Code await_bell(uint32_t seen, const std::vector<Awaited>& awaited) noexcept;

  // The address in this process of bytes in a rank's segment; null if the segment has no such bytes.
  std::byte* reach(int rank, uint64_t offset, uint64_t bytes) noexcept {
    return rank == rank_
               ? segments_->own.at(offset)
               : segments_->peers[static_cast<size_t>(origins_[static_cast<size_t>(rank)])]->at(offset, bytes);
  }

  // These and after_access take the operation that has met the failure.
  Code fail(Failure::Reason reason, int rank, const Operation& operation) noexcept;
  Code fail(Failure::Reason reason, int rank) noexcept { return fail(reason, rank, current_); }
  Code mismatch(int other, const Agreement& theirs, const Operation& operation) noexcept;
  const Operation& operation() const noexcept { return current_; }  // the one that begin was called for last
  const GroupFault& fault() const noexcept { return *fault_; }
  uint32_t sequence() const noexcept { return current_.sequence; }

  static constexpr uint32_t kRoundMask = 0x7fffffff;
  // A wait sleeps for this long between its checks. What they find must raise within a second.
  static constexpr std::chrono::milliseconds kSlice{350};

 private:
  struct Wait;
  struct Inquiry;
  Code await_slowly(Cell& cell, int rank) noexcept;
  Code wait(const Wait& wait) noexcept;
  Code look_after(const Wait& wait, Inquiry* inquiry, Deadline* deadline) noexcept;
  Code adopt(const Failure& failure, const Operation& operation) noexcept;
  bool lacks(int rank) noexcept;
  Failure::Reason end_of(int rank, int64_t now_ns) noexcept;
  bool exited(int rank) noexcept;
  void ring(int rank) noexcept;
  static void publish_word(std::atomic<uint32_t>& word, uint32_t round) noexcept {
    const uint32_t old = word.exchange(round << 1, std::memory_order_acq_rel);
    if (old & 1) [[unlikely]]
      futex_wake_all(word, Scope::kProcesses);
  }

  std::shared_ptr<ControlBlock> control_;
  std::shared_ptr<Segments> segments_;
  int rank_, size_;
  std::vector<int> origins_;
  std::vector<int> pidfds_;
  Exposure exposure_;
  std::chrono::nanoseconds timeout_;
  uint32_t spins_;
  std::unique_ptr<std::byte[]> scratch_;
  uint32_t round_ = 0;
  uint32_t turn_ = 0;  // counts the uses of staging memory; its lowest bit chooses the half
  Operation current_;
  Waiter* waiter_ = nullptr;
  Deadline deadline_ = kNoDeadline;  // the operation's, set at its first long wait
  bool waited_long_ = false;         // whether the last wait that yielded was a long one
  std::atomic<bool> passing_{false}, leaving_{false};
  // Another thread may be writing to it at the moment of a fork.
  LeftInChildren<GroupFault> fault_;
};

}  // namespace gradring
