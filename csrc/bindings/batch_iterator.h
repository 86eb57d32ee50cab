// BatchIterator: the object behind `for batch in loader`, and the loader as a source of the training loop.
//
// | variable           | writer       | readers    | order   | why                                          |
// |--------------------|--------------|------------|---------|----------------------------------------------|
// | Latencies::counts_ | the consumer | statistics | relaxed | numbers to look at                           |
// | Reader::thread_    | its reader   | anybody    | relaxed | a thread finds its own number or another one |
// | left (in the .cc)  | leave, sweep | sweep      | acq_rel | hands over runs, whole                       |
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "bindings/lease.h"
#include "loader/pipeline.h"
#include "runtime/batch_source.h"

namespace gradring {

// A histogram of nanoseconds in steps of a quarter of an octave.
class Latencies {
 public:
  void add(int64_t ns) noexcept;
  double quantile(double q) const noexcept;  // nanoseconds; 0 without any
  uint64_t count() const noexcept;

 private:
  static constexpr int kBuckets = 160;
  std::atomic<uint64_t> counts_[kBuckets] = {};
};

// Who reads a run holds this lock: one thread at a time, and none twice on one stack (a signal handler, a finalizer or a
// source's function may do anything).
class Reader {
 public:
  bool here() const noexcept { return thread_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }
  bool try_lock() noexcept { return entered(mutex_.try_lock()); }
  bool try_lock_until(Deadline deadline) noexcept { return entered(mutex_.try_lock_until(deadline)); }
  void lock() noexcept {
    mutex_.lock();
    entered(true);
  }
  void unlock() noexcept {
    thread_.store({}, std::memory_order_relaxed);
    mutex_.unlock();
  }

 private:
  bool entered(bool yes) noexcept {
    if (yes) thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    return yes;
  }
  std::timed_mutex mutex_;
  std::atomic<std::thread::id> thread_{};
};

// A pipeline as Python holds it: with the form of its batches, and the exceptions that its workers raised.
//
// A `watcher` decides what a trouble means. It is asked on the slow paths only, with the GIL held:
//   waited(seconds, held)   about every 50 ms of a wait; may raise. held: batches out, if a slot is waited for; else -1
//   failed(lane, batch, sample, code, message)   raises
//   closed()                                     raises
//   finished()              the epoch is over
class LoaderRun {
 public:
  // Nobody waits where the last reference dies: a run whose workers are still at work is left to them (see sweep).
  static std::shared_ptr<LoaderRun> make(std::unique_ptr<Pipeline> pipeline, BatchForm form);
  ~LoaderRun();  // joins the workers with the GIL released
  LoaderRun(const LoaderRun&) = delete;
  LoaderRun& operator=(const LoaderRun&) = delete;

  Pipeline& pipeline() noexcept { return *pipeline_; }
  const BatchForm& form() const noexcept { return form_; }
  Latencies& hand_off() noexcept { return hand_off_; }
  Reader& reader() noexcept { return reader_; }
  // The exception that failed this batch of the run, or None.
  py::object take_error(int64_t batch);
  void forget_errors();

  // Ends the workers for good and waits for that, at most so long, with the GIL released. False if one is still at work.
  // Does not wait where it would wait for itself: in a worker, or within a read. With `signals`, raises what they raise.
  bool join(double seconds, bool signals);
  // Frees the runs that were left and whose workers have ended since. True if there are no others.
  static bool sweep() noexcept;

  // Waits with the GIL released. False with a Python error set, or at the end of the epoch (then without one).
  bool next(Delivery* delivery, PyObject* watcher);
  // The same without the GIL held, until the deadline: for the training loop. kPython: this thread holds the error.
  Status next_natively(Delivery* delivery, PyObject* watcher, Deadline deadline);

 private:
  LoaderRun(std::unique_ptr<Pipeline> pipeline, BatchForm form);
  static void leave(LoaderRun* run) noexcept;
  static void push_left(LoaderRun* run) noexcept;
  void ask(Delivered what, int64_t waited_ns, PyObject* watcher);

  std::unique_ptr<Pipeline> pipeline_;
  BatchForm form_;
  Latencies hand_off_;
  Reader reader_;
  LoaderRun* next_left_ = nullptr;
  std::mutex errors_mutex_;
  std::map<int64_t, PyObject*> errors_;
};

// A new reference to an iterator over the run that `run` has started.
PyObject* new_batch_iterator(std::shared_ptr<LoaderRun> run, py::object watcher);

}  // namespace gradring
