// Group: a rank's membership of a communicator. Blocking operations run in the calling thread; all others run in a thread of the
// communicator, which the first of them starts. The operations of one rank start in the order of the calls; sends and receives
// run at the same time.
//
// | variable        | writer        | readers         | order            | why                                           |
// |-----------------|---------------|-----------------|------------------|-----------------------------------------------|
// | Group::pending_ | submit, worker| run             | acq_rel, acquire | operations of the worker come first           |
// | Group::closed_  | close         | run, submit     | release, acquire | a closed communicator refuses                 |
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/rounds.h"
#include "comm/stack_teller.h"
#include "comm/thread_rank.h"
#include "comm/transfer.h"
#include "gradring/export.h"

namespace gradring {

// An operation that runs without its caller.
class GRADRING_API Request {
 public:
  explicit Request(Call call) noexcept : call_(std::move(call)) {}
  bool done() const noexcept { return finished_.value() != 0; }
  // Returns false if the deadline passed first, or if the waiter wanted to leave. The operation then goes on.
  bool wait(Deadline deadline, Waiter* waiter) noexcept;
  Code code() const noexcept { return code_; }  // once it is done
  const Call& call() const noexcept { return call_; }

 private:
  friend class Group;
  void finish(Code code) noexcept {
    code_ = code;
    finished_.publish(1);
  }

  Call call_;
  Code code_ = Code::kOk;
  Signal finished_;
};

class GRADRING_API Group {
 public:
  // Joins a group of processes. Descriptors stay the caller's; pidfds[i] is rank i's, or -1 where there is none.
  // data_fds[rank] must be empty, and of this rank alone. Throws Error.
  static std::shared_ptr<Group> join(int segment_fd, int rank, int size, uint64_t generation,
                                     const std::vector<int>& pidfds, const std::vector<int>& data_fds,
                                     std::chrono::nanoseconds timeout);
  // A group of threads of this process.
  static std::vector<std::shared_ptr<Group>> of_threads(int size, std::chrono::nanoseconds timeout);

  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const noexcept { return rounds_.rank(); }
  int size() const noexcept { return rounds_.size(); }
  bool has_threads() const noexcept { return thread_rank_ != nullptr; }
  bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }

  // Anything but kOk, kInvalidArgument (all weights are zero; on all ranks), kClosed (closed before) and kUnavailable (in a
  // forked child) is the end of the group: fault() says why, and the arrays of the segment have become private.
  Code run(const Call& call, Waiter* waiter = nullptr) noexcept;
  // Throws Error where run would return kClosed or kUnavailable, or if there is no thread for it.
  std::shared_ptr<Request> submit(Call call);
  // A request's end, for its caller: as run().
  Code settle(Request& request) noexcept;

  // A group of the ranks with the same color, ordered by key and rank; null for a negative color. All ranks call it.
  std::shared_ptr<Group> split(int color, int key, Waiter* waiter, Code* code);
  // The same in parts, for members that meet elsewhere, so that no other rank takes part. One member makes the words of a
  // group of `ranks` ranks in its segment, and tells the others their offset; then each member joins. members[0] is the
  // rank that made them, and no member may leave before all have joined. Both throw Error.
  uint64_t make_words(int ranks);
  std::shared_ptr<Group> join_words(const std::vector<int>& members, uint64_t offset);

  // Waits for what was submitted, then leaves.
  void close() noexcept;

  void* allocate(size_t bytes) { return rounds_.segments()->own.allocate(bytes); }
  const std::shared_ptr<Segments>& segments() const noexcept { return rounds_.segments(); }

  // What this rank does while it is in no operation, and how long at most: its peers wait for it until then.
  // `passing`: only until this rank begins an operation.
  void set_activity(Activity activity, std::chrono::nanoseconds patience, bool passing = false) noexcept;
  // For a thread that tells this rank's stack to ranks that give it up.
  std::unique_ptr<StackTeller> stack_teller() {
    return std::make_unique<StackTeller>(rounds_.shared_control(), rank());
  }

  Fault fault() const;
  // Why a code was returned, in words.
  std::string message(Code code, const Call& call) const;

 private:
  Group(std::shared_ptr<ControlBlock> control, std::shared_ptr<Segments> segments, int rank, std::vector<int> origins,
        std::vector<int> pidfds, std::chrono::nanoseconds timeout, bool threads);
  std::shared_ptr<Group> adopt_words(const std::vector<int>& members, uint64_t offset);
  Code refusal() noexcept;
  Code execute(const Call& call, Waiter* waiter) noexcept;
  Code ended(Code code) noexcept;
  void work();
  void work_on_transfers(std::shared_ptr<Request> first);

  Rounds rounds_;
  Mailboxes boxes_;
  std::unique_ptr<ThreadRank> thread_rank_;
  uint64_t forks_;
  mutable std::mutex executing_;  // held by the thread that runs an operation
  std::atomic<bool> closed_{false};
  std::atomic<uint32_t> pending_{0};

  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<std::shared_ptr<Request>> queue_;
  bool stop_ = false;
  std::unique_ptr<std::thread> worker_;
};

}  // namespace gradring
