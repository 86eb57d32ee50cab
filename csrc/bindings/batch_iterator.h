// BatchIterator: the object behind `for batch in loader`, and the loader as a source of the training loop.
//
// | variable           | writer       | readers    | order   | why                |
// |--------------------|--------------|------------|---------|--------------------|
// | Latencies::counts_ | the consumer | statistics | relaxed | numbers to look at |
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

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

// A pipeline as Python holds it: with the forms of its batches, and who decides what a trouble means.
//
// `watcher` is asked on the slow paths only, with the GIL held:
//   waited(seconds, held) -> None    about every 50 ms of a wait; may raise. held: batches out, if a slot is waited for, else -1
//   failed(lane, batch, sample, code, message)   raises
//   closed()                         raises
class LoaderRun {
 public:
  LoaderRun(std::shared_ptr<Pipeline> pipeline, BatchForm form) : pipeline_(std::move(pipeline)), form_(std::move(form)) {}

  Pipeline& pipeline() noexcept { return *pipeline_; }
  const std::shared_ptr<Pipeline>& shared_pipeline() const noexcept { return pipeline_; }
  const BatchForm& form() const noexcept { return form_; }
  Latencies& hand_off() noexcept { return hand_off_; }
  std::mutex& mutex() noexcept { return mutex_; }

  // Waits with the GIL released. False with a Python error set, or at the end of the epoch (then without one).
  bool next(Delivery* delivery, PyObject* watcher);

 private:
  bool raise_trouble(Delivered what, PyObject* watcher);

  std::shared_ptr<Pipeline> pipeline_;
  BatchForm form_;
  Latencies hand_off_;
  std::mutex mutex_;  // one consumer at a time
};

// A new reference to an iterator over the run that `run` has started.
PyObject* new_batch_iterator(std::shared_ptr<LoaderRun> run, py::object watcher);

}  // namespace gradring
