// Group: a rank's membership of a communicator. Blocking operations run in the calling thread; all others run in a thread of the
// communicator, which the first of these operations starts. The operations of one rank start in the order of the calls. Sends
// and receives that were submitted one after another run side by side.
//
// | variable        | writer        | readers         | order            | why                                           |
// |-----------------|---------------|-----------------|------------------|-----------------------------------------------|
// | Group::pending_ | submit, worker| run             | acq_rel, acquire | operations of the worker come first           |
// | Group::closed_  | close         | run, submit     | release, acquire | a closed communicator refuses                 |
// | Group::executor_| who executes  | run, submit,    | relaxed          | a thread must recognize only its own number;  |
// |                 |               | close           |                  | other numbers are a hint                      |
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
#include "comm/shared_region.h"
#include "comm/stack_teller.h"
#include "comm/thread_rank.h"
#include "comm/transfer.h"
#include "gradring/export.h"
#include "runtime/forks.h"

namespace gradring {

// An operation that runs in the communicator's thread while its caller does other work.
class GRADRING_API Request {
 public:
  explicit Request(Call call) noexcept : call_(std::move(call)) {}
  bool done() const noexcept { return finished_.value() != 0; }
  // Returns false if the deadline passed first, or if the waiter was interrupted. The operation then goes on.
  bool wait(Deadline deadline, Waiter* waiter) noexcept;
  // The same for any signal that is published once.
  static bool await(Signal& signal, Deadline deadline, Waiter* waiter,
                    std::chrono::milliseconds slice = Rounds::kSlice) noexcept;
  Code code() const noexcept { return code_; }  // valid once done() is true
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

class Group {
 public:
  // Joins a group of processes. The caller keeps its descriptors; pidfds[i] is rank i's, or -1 if it has none.
  // data_fds[rank] must be an empty file that no other rank writes to. Throws Error.
  GRADRING_API static std::shared_ptr<Group> join(int segment_fd, int rank, int size, uint64_t generation,
                                                  const std::vector<int>& pidfds, const std::vector<int>& data_fds,
                                                  std::chrono::nanoseconds timeout);
  // Makes a group whose ranks are threads of this process.
  GRADRING_API static std::vector<std::shared_ptr<Group>> of_threads(int size, std::chrono::nanoseconds timeout);

  GRADRING_API ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const noexcept { return rounds_.rank(); }
  int size() const noexcept { return rounds_.size(); }
  // The ranks in the group that join or of_threads made, of which this group was split off, perhaps in several steps.
  const std::vector<int>& origins() const noexcept { return rounds_.origins(); }
  bool has_threads() const noexcept { return thread_rank_ != nullptr; }
  bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }
  GRADRING_API bool executes() const noexcept;  // whether the calling thread is within an operation
  GRADRING_API bool forked() const noexcept;    // whether this process is a forked child, and so no rank

  // After kOk, kInvalidArgument (all weights are zero; every rank gets it), kClosed (it was closed before) and
  // kUnavailable (in a forked child) the group stays usable. Any other code ends it: fault() says why, and the
  // segment's arrays are now private.
  GRADRING_API Code run(const Call& call, Waiter* waiter = nullptr) noexcept;
  // Throws Error where run would return kClosed or kUnavailable, or if the system refuses the thread.
  GRADRING_API std::shared_ptr<Request> submit(Call call);
  // Ends a finished request in the caller's thread. Returns the same codes as run().
  GRADRING_API Code settle(Request& request) noexcept;

  // Makes a group of the ranks with the same color, ordered by key and rank; null for a negative color. All ranks call
  // it.
  GRADRING_API std::shared_ptr<Group> split(int color, int key, Waiter* waiter, Code* code);
  // Makes a group without the ranks that are no members of it. One member makes the control block of a group of `ranks`
  // ranks in its segment, and sends the others its offset; then each member joins. members[0] is the rank that made the
  // block, and no member may leave before all have joined. Both throw Error.
  GRADRING_API uint64_t make_words(int ranks);
  GRADRING_API std::shared_ptr<Group> join_words(const std::vector<int>& members, uint64_t offset);

  // Makes memory of these many bytes in the segment of rank 0, which all ranks map, filled with zeros. All ranks call it with the
  // same sizes. Null if `code` is not kOk.
  GRADRING_API std::shared_ptr<SharedRegion> share(const std::vector<size_t>& parts, Waiter* waiter, Code* code);
  // Gives kInlineBytes bytes of each rank to all ranks: `all` gets those of rank 0, then those of rank 1, and so on. `sequence` is
  // the number of this operation. After a failure `gathered` copies what the ranks have published.
  Code meet(const std::byte* mine, std::byte* all, uint32_t* sequence, Waiter* waiter) noexcept;
  void gathered(std::byte* all) noexcept;

  // Waits for the submitted operations, then leaves the group. It gives up those that wait for other ranks after `patience`, if the
  // waiter is interrupted, or if another thread's operation must end before they can begin. It gives up that operation, too.
  GRADRING_API void close(std::chrono::nanoseconds patience = std::chrono::nanoseconds::max(),
                          Waiter* waiter = nullptr) noexcept;
  // A group that is destroyed without close() waits this long for its operations.
  static constexpr std::chrono::seconds kDropPatience{10};

  // Memory in this rank's data segment; segments()->own.free gives it back. Throws Error.
  GRADRING_API void* allocate(size_t bytes);
  const std::shared_ptr<Segments>& segments() const noexcept { return rounds_.segments(); }

  // Says what this rank does while it is in no operation, and for how long at most: its peers wait for it
  // until then. With `passing`, the activity ends when this rank begins an operation.
  GRADRING_API void set_activity(Activity activity, std::chrono::nanoseconds patience, bool passing = false) noexcept;
  // This function is for the thread that writes this rank's stack down when other ranks declare it stalled.
  std::unique_ptr<StackTeller> stack_teller() {
    return std::make_unique<StackTeller>(rounds_.shared_control(), rank());
  }

  GRADRING_API GroupFault fault() const;
  // Explains a code that an operation returned.
  GRADRING_API std::string message(Code code, const Call& call) const;

 private:
  Group(std::shared_ptr<ControlBlock> control, std::shared_ptr<Segments> segments, int rank, std::vector<int> origins,
        std::vector<int> pidfds, std::chrono::nanoseconds timeout, bool threads);
  std::shared_ptr<Group> adopt_words(const std::vector<int>& members, uint64_t offset);
  void decline(int maker, uint64_t offset, int ranks, int place) noexcept;
  // Holds executing_ for an operation of the calling thread. If the waiter is interrupted before, the group fails, and the operation
  // cannot begin.
  class Executing {
   public:
    Executing(Group& group, Waiter* waiter) noexcept;
    ~Executing() { group_.executor_.store(0, std::memory_order_relaxed); }
    Executing(const Executing&) = delete;
    Executing& operator=(const Executing&) = delete;

   private:
    Group& group_;
    std::unique_lock<std::timed_mutex> lock_;
  };
  class CloseWaiter;
  Code refusal() noexcept;
  // Waits until the operations that were submitted before have ended.
  Code drain(Waiter* waiter) noexcept;
  void await_end(Request& request, Waiter* waiter) noexcept;
  Code execute(const Call& call, Waiter* waiter) noexcept;
  Code perform(const Call& call) noexcept;
  Code ended(Code code) noexcept;
  void work();
  void work_on_transfers(std::shared_ptr<Request> first);

  Rounds rounds_;
  Mailboxes boxes_;
  std::unique_ptr<ThreadRank> thread_rank_;
  // The thread that runs an operation holds this lock. While it does, its signal handlers may not begin another operation.
  mutable std::timed_mutex executing_;
  std::atomic<uint64_t> executor_{0};
  std::atomic<bool> closed_{false};
  std::atomic<uint32_t> pending_{0};

  std::mutex queue_mutex_;
  // In a forked child, its destructor would also wait for the thread, which the child does not have.
  LeftInChildren<std::condition_variable> queue_changed_;
  LeftInChildren<std::deque<std::shared_ptr<Request>>> queue_;
  bool stop_ = false;
  std::unique_ptr<std::thread> worker_;
  Signal worker_ended_;
};

}  // namespace gradring
