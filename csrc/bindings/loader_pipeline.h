// LoaderPipeline: a loader's pipeline in the form in which Python holds it.
//
// | variable           | writer       | readers    | order   | why                                          |
// |--------------------|--------------|------------|---------|----------------------------------------------|
// | Latencies::counts_ | the reader   | statistics | relaxed | sums with one writer                         |
// | Reader::thread_    | its reader   | any thread | relaxed | a thread finds its own number or another one |
// | left (in the .cc)  | leave, sweep | sweep      | acq_rel | hands over pipelines, whole                  |
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "bindings/lease.h"
#include "loader/pipeline.h"
#include "runtime/batch_source.h"

namespace gradring {

// A histogram of nanoseconds. The bounds of its bins grow by a factor of 2^(1/4).
class Latencies {
 public:
  void add(int64_t ns) noexcept;
  double quantile(double q) const noexcept;  // in nanoseconds; 0 if nothing was counted
  uint64_t count() const noexcept;

 private:
  static constexpr int kBuckets = 160;
  std::atomic<uint64_t> counts_[kBuckets] = {};
};

// The lock that the consumer of a pipeline holds. One thread at a time may hold it. A thread that holds it and asks again, in a
// signal handler, a finalizer or a function of the source, gets an error.
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

// A pipeline, together with the form of its batches and the exceptions that its workers raised.
//
// A Pass (python/gradring/loader/passes.py) is the right to read it once. If a reader, which is an iterator or a feed, cannot go
// on, it calls one of these methods of the Pass, with the GIL held:
//   waited(seconds, held)   about every 50 ms of a wait; may raise. held: how many batches consumers hold, if the reader
//                           waits for a slot; else -1
//   failed(stripe, batch, sample, code, message)   raises
//   closed()                                     raises
//   finished()                                   the epoch is over; an iterator's alone
class LoaderPipeline {
 public:
  // Dropping the last reference never waits: if workers still run, the pipeline lives on until sweep frees it.
  static std::shared_ptr<LoaderPipeline> make(std::unique_ptr<Pipeline> pipeline, BatchForm form);
  ~LoaderPipeline();  // joins the workers with the GIL released
  LoaderPipeline(const LoaderPipeline&) = delete;
  LoaderPipeline& operator=(const LoaderPipeline&) = delete;

  Pipeline& native() noexcept { return *pipeline_; }
  const BatchForm& form() const noexcept { return form_; }
  Latencies& hand_off() noexcept { return hand_off_; }
  Reader& reader() noexcept { return reader_; }
  // The exception that failed this batch of the pass, or None.
  py::object take_error(int64_t batch);
  void forget_errors();

  // Ends the workers for good, and waits for their end until a deadline, with the GIL released. Returns false if one is
  // still at work. It does not wait in a worker or within a read, where it would wait for itself. With `signals`, it
  // raises what the handlers of signals raise.
  bool join(double seconds, bool signals);
  // Frees the pipelines without an owner whose workers have ended. Returns whether none is left.
  static bool sweep() noexcept;

  // Waits for the next batch, with the GIL released. Returns false at the end of the epoch, or with a Python error set.
  bool next(Delivery* delivery, PyObject* reading);
  // Does the same until the deadline, for a caller without the GIL. kPython: this thread holds the error (held_error.h).
  Status next_natively(Delivery* delivery, PyObject* reading, Deadline deadline);

 private:
  LoaderPipeline(std::unique_ptr<Pipeline> pipeline, BatchForm form);
  Delivered next_in_slice(Delivery* delivery, Deadline slice);
  static void leave(LoaderPipeline* pipeline) noexcept;
  static void push_left(LoaderPipeline* pipeline) noexcept;
  void ask(Delivered what, int64_t waited_ns, PyObject* reading);

  std::unique_ptr<Pipeline> pipeline_;
  BatchForm form_;
  Latencies hand_off_;
  Reader reader_;
  LoaderPipeline* next_left_ = nullptr;
  std::mutex errors_mutex_;
  std::map<int64_t, PyObject*> errors_;
};

}  // namespace gradring
