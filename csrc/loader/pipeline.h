// Pipeline: runs a loader's workers and gives their batches, in order, to one consumer at a time.
//
// A delivered batch belongs to its consumer until the consumer gives the slot back to slots(). Another slot takes its place
// immediately, so nothing waits for a batch that its consumer keeps. If there is no free slot, the pipeline adds one within
// its budget; beyond the budget next returns kHeld, and the consumer waits or gives up.
//
// Workers may fill the batches below allowed_: at most ahead() beyond the next one, each in a slot that the pipeline owns.
// Slots without a batch lie in reserve_. If there are more cells than ahead(), the tuner may change ahead() at any time.
//
// Only the consumer uses the members, with two exceptions: any thread may call close and stop, and any thread may read the
// counters.
//
// | variable                             | writer         | readers     | order             | why                             |
// |--------------------------------------|----------------|-------------|-------------------|---------------------------------|
// | counters_: batches, rows, bytes      | consumer       | statistics  | relaxed           | sums with one writer            |
// | counters_: skipped, ready, occupancy | consumer       | statistics  | relaxed           | sums with one writer            |
// | counters_: wait_ns, fill_ns, own_ns  | consumer       | statistics  | relaxed           | sums with one writer            |
// | closed_                              | close          | next, start | release / acquire | it ends the consumer's wait     |
// | quit_                                | join           | threads     | relaxed           | a flag; joining orders the rest |
// | alive_                               | threads, start | join        | release / acquire | a thread has left all it used   |
// | active_                              | tell_active    | anybody     | relaxed           | RunBlock::active tells workers  |
// | active_turn_                         | tell_active    | tell_active | RMW relaxed       | each publish differs            |
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "gradring/export.h"
#include "loader/control.h"
#include "loader/slots.h"
#include "loader/tuner.h"
#include "loader/worker.h"
#include "runtime/arena.h"
#include "runtime/forks.h"
#include "runtime/pinning.h"

namespace gradring {

enum class Delivered : uint8_t {
  kBatch,
  kEnd,      // the epoch is over
  kTimeout,  // The deadline passed, or an idle worker process died. (It owes no batch, so its death shows up only here.)
  kHeld,     // a batch is ready, but consumers hold all slots and the budget is spent
  kFailed,   // a worker failed at this batch: see failed_stripe and failed_part
  kClosed,
};

struct Delivery {
  uint32_t slot = 0;
  int64_t rows = 0;
  int64_t position = 0;  // the first row's position in the epoch's order
  int64_t batch = 0;     // the batch's number in the run, from 0
};

struct PipelineOptions {
  int64_t batch_size = 1;
  uint32_t cells = 4;        // the most batches ahead
  uint32_t ahead = 0;        // batches ahead at the beginning; 0: `cells`. Below `cells` the tuner changes it
  uint32_t workers = 1;      // 0: the consumer fills its batches itself
  uint32_t active = 1;       // how many of the workers are active at the beginning
  bool processes = false;    // workers are processes, and not threads
  bool tune = false;         // the tuner chooses how many workers are active
  uint32_t parts = 1;        // parts of a batch, which all threads fill together; 0: chosen by size. Processes, and
                             // sources that raise in Python, need 1
  bool help = false;         // a consumer that would wait fills batches itself; with `tune`, no worker need be active
  size_t memory_budget = 0;  // bytes
  Pinner* pinner = nullptr;  // with one, slots lie in shared memory, for threads too, and are registered: SlotPool::pin

  bool tunes() const noexcept { return workers > 0 && (tune || (ahead > 0 && ahead < cells)); }
};

// What the consumer has counted so far.
struct ConsumerCounters {
  static constexpr size_t kOccupancies = 65;
  std::atomic<uint64_t> batches{0}, rows{0}, bytes{0}, skipped{0}, ready{0};
  std::atomic<uint64_t> wait_ns{0};                    // time in which it waited for a batch, or filled one itself
  std::atomic<uint64_t> fill_ns{0};                    // the part of wait_ns in which it filled batches
  std::atomic<uint64_t> own_ns{0};                     // time between two calls of next: the consumer's own work
  std::atomic<uint64_t> occupancy[kOccupancies] = {};  // [n]: deliveries after which n more batches were ready
};

class Pipeline {
 public:
  // Starts no thread. `source` may be null with processes, which have their own. Throws Error.
  GRADRING_API Pipeline(std::shared_ptr<const Source> source, const std::vector<FieldSpec>& fields,
                        const PipelineOptions& options);
  GRADRING_API ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  // Begins a run: an epoch, or the rest of one. Ends the run before it and waits for its workers. Throws Error.
  GRADRING_API void start(const OrderOptions& order, bool skip, Deadline deadline = kNoDeadline);
  GRADRING_API Delivered next(Delivery* delivery, Deadline deadline, Patience patience = Ring<>::kConsumer) noexcept;
  // Ends the run: workers park after the sample that they are at. Any thread may call it.
  GRADRING_API void stop() noexcept;
  // Ends the run, and every later wait immediately. Any thread may call it.
  GRADRING_API void close() noexcept;
  // Closes, and waits until the worker threads have ended. False if one is still at work at the deadline, or is the
  // caller. No other thread may be in next.
  GRADRING_API bool join(Deadline deadline = kNoDeadline) noexcept;
  bool ended() const noexcept { return alive_.load(std::memory_order_acquire) == 0 || forked(); }
  // Whether the caller is one of the worker threads: a source may call a function of the user, which may do anything.
  GRADRING_API bool on_own_thread() const noexcept;
  // Makes each worker thread call `told` just before it ends.
  void on_thread_end(void (*told)() noexcept) noexcept { thread_end_ = told; }
  bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }

  const PipelineOptions& options() const noexcept { return options_; }
  const SlotLayout& layout() const noexcept { return layout_; }
  const std::shared_ptr<SlotPool>& slots() const noexcept { return slots_; }
  const Order& order() const noexcept { return order_; }
  int64_t delivered() const noexcept { return static_cast<int64_t>(next_); }  // how many batches of this run
  GRADRING_API uint32_t held() const noexcept;                                // how many batches consumers hold
  const PartBlock& failed_part() const noexcept { return failed_part_; }
  uint32_t failed_stripe() const noexcept { return failed_stripe_; }
  const ConsumerCounters& counters() const noexcept { return counters_; }
  Control& control() noexcept { return control_; }
  int control_fd() const noexcept { return arena_.fd(); }
  size_t control_bytes() const noexcept { return Control::bytes(control_.shape()); }
  void on_failure(const Worker::Failed& failed) {
    failed_ = failed;
    if (self_) self_->on_failure(failed);
  }
  const Tuner& tuner() const noexcept { return tuner_; }
  // How many workers may begin batches that are allowed from now on. The consumer calls it; later the tuner may choose
  // another number.
  void set_active(uint32_t count) noexcept;
  uint32_t active() const noexcept { return active_.load(std::memory_order_relaxed); }
  uint32_t ahead() const noexcept { return control_.run().ahead.load(std::memory_order_relaxed); }

  // Sets the pidfd of the process that serves a stripe, or -1 if none does. The caller goes on owning the descriptor.
  void set_process(uint32_t stripe, int pidfd) noexcept { pidfds_[stripe] = pidfd; }
  // The first stripe whose process has ended, or -1.
  GRADRING_API int dead_stripe() const noexcept;
  // Recovers a stripe whose process has ended: for a new process if `restart` is set, else for good.
  GRADRING_API void recover_stripe(uint32_t stripe, bool restart) noexcept;
  // The first stripe that has not committed the batch that the consumer waits for, or -1.
  GRADRING_API int waited_stripe() noexcept;
  // True in a child that was forked from the process that made this pipeline: the workers are not in the child.
  GRADRING_API bool forked() const noexcept;

 private:
  enum class Spare : uint8_t { kYes, kNo };
  void start_threads();
  // Whether the consumer fills batches itself instead of waiting, because of `help` or because there is no worker.
  bool helps() const noexcept { return options_.help || (!options_.processes && threads_->empty()); }
  bool parked(Deadline deadline) noexcept;
  bool dead(uint32_t stripe) const noexcept;
  Spare find_spare() noexcept;
  void count_wait(int64_t since) noexcept;
  Delivered fill_here(Delivery* delivery) noexcept;
  Delivered fill_one(Delivery* delivery) noexcept;
  Delivered help(Delivery* delivery) noexcept;
  void help_parts(uint64_t ticket) noexcept;
  Delivered take(Delivery* delivery) noexcept;
  void deliver(Delivery* delivery, uint32_t slot, int64_t rows) noexcept;
  // Adds to a counter. It needs no read-modify-write, because each counter has only one writer.
  static void add(std::atomic<uint64_t>& counter, uint64_t by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  // Piece i of a batch: the ring through which it comes, its ticket there, and what its worker reported.
  Ring<> ring_of(uint32_t piece) const noexcept { return control_.ring(stripe_of(piece)); }
  uint32_t cell_of(uint64_t batch) const noexcept { return static_cast<uint32_t>(batch % options_.cells); }
  uint32_t pieces_of(uint64_t batch) const noexcept { return control_.cell(cell_of(batch)).pieces; }
  uint32_t stripe_of(uint32_t piece) const noexcept { return control_.shape().stripes > 1 ? piece : 0; }
  uint64_t ticket_of(uint64_t batch, uint32_t piece) const noexcept {
    return control_.shape().stripes > 1 ? batch : batch * control_.shape().parts + piece;
  }
  const PartBlock& said_of(uint64_t batch, uint32_t piece) const noexcept {
    return control_.part(stripe_of(piece), ring_of(piece).slot(ticket_of(batch, piece)));
  }
  bool whole(uint64_t batch) const noexcept;
  void pass_idle_stripes() noexcept;
  bool idle_stripe_died(int64_t now) noexcept;
  void leave_slot(uint32_t slot) noexcept { reserve_[reserved_++] = slot; }
  bool sleeper() const noexcept;
  void allow_more() noexcept;
  void set_ahead(uint32_t count) noexcept;
  void choose_stores() noexcept;
  void tell_active(uint32_t count) noexcept;  // any thread may call it, unlike set_active
  void compact(std::byte* slot, int64_t rows) const noexcept;
  void tune(int64_t now) noexcept;

  PipelineOptions options_;
  std::vector<FieldSpec> fields_;
  SlotLayout layout_;
  std::unique_ptr<Filler> filler_;
  std::shared_ptr<SlotPool> slots_;
  SharedArena arena_;
  Control control_;
  std::vector<int> pidfds_;
  // A consumer's thread may be adding to them at a fork, and the destructor of a running thread's handle would end the child.
  LeftInChildren<std::vector<std::unique_ptr<Worker>>> workers_;  // one per thread
  LeftInChildren<std::vector<std::thread>> threads_;  // fewer than options_.workers where the system refused some
  std::unique_ptr<Worker> self_;                      // fills batches in the consumer's own thread
  Worker::Failed failed_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> quit_{false};
  std::atomic<uint32_t> alive_{0};  // worker threads that have not ended
  void (*thread_end_)() noexcept = nullptr;

  Order order_;
  bool skip_ = false;
  uint64_t end_ = 0;
  uint64_t next_ = 0;                    // the batch that the consumer takes next
  uint64_t allowed_ = 0;                 // workers may fill the batches below; next_ <= allowed_ <= next_ + ahead()
  std::unique_ptr<uint32_t[]> reserve_;  // slots without a batch
  uint32_t reserved_ = 0;                // how many slots lie in reserve_
  bool has_spare_ = false;
  uint32_t spare_ = 0;
  uint32_t failed_stripe_ = 0;
  PartBlock failed_part_;
  int64_t left_at_ = 0;      // the time at which next last returned
  int64_t saw_idle_at_ = 0;  // the time at which all idle processes were last seen alive
  ConsumerCounters counters_;
  Tuner tuner_;
  struct {
    int64_t at = 0;
    uint64_t waited = 0, filled = 0, worked = 0, busy = 0, batches = 0;
  } looked_;  // the counters as the tuner saw them last
  std::atomic<uint32_t> active_{0};
  std::atomic<uint32_t> active_turn_{0};
};

}  // namespace gradring
