#include "bindings/loader_pipeline.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "bindings/held_error.h"
#include "runtime/clock.h"

namespace gradring {

namespace {

constexpr auto kSlice = std::chrono::milliseconds(50);

// Pipelines without an owner whose workers have not ended yet: sweep frees them.
std::atomic<LoaderPipeline*> left{nullptr};

// Runs Python's garbage collector, even if the user has switched it off.
void collect_garbage() {
  PyObject* const module = PyImport_ImportModule("gc");
  PyObject* const found = module ? PyObject_CallMethod(module, "collect", nullptr) : nullptr;
  Py_XDECREF(module);
  if (!found) throw py::error_already_set();
  Py_DECREF(found);
}

}  // namespace

void Latencies::add(int64_t ns) noexcept {
  const int bucket = ns < 1 ? 0 : static_cast<int>(4 * std::log2(static_cast<double>(ns)));
  auto& count = counts_[bucket < kBuckets ? bucket : kBuckets - 1];
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // one writer
}

uint64_t Latencies::count() const noexcept {
  uint64_t sum = 0;
  for (const auto& count : counts_) sum += count.load(std::memory_order_relaxed);
  return sum;
}

double Latencies::quantile(double q) const noexcept {
  const double wanted = q * static_cast<double>(count());
  double below = 0;
  for (int i = 0; i < kBuckets && wanted > 0; ++i) {
    below += static_cast<double>(counts_[i].load(std::memory_order_relaxed));
    if (below >= wanted) return std::exp2((i + 0.5) / 4);
  }
  return 0;
}

LoaderPipeline::LoaderPipeline(std::unique_ptr<Pipeline> pipeline, BatchForm form)
    : pipeline_(std::move(pipeline)), form_(std::move(form)) {
  // This function runs on a worker's thread.
  pipeline_->on_failure([this](uint64_t ticket, const PartBlock& part) {
    if (!is_python(part.status.code())) return;
    with_python([&] {
      PyObject* error = take_held_error().release().ptr();
      {
        const std::lock_guard<std::mutex> lock(errors_mutex_);
        std::swap(errors_[static_cast<int64_t>(ticket)], error);
      }
      Py_XDECREF(error);
    });
  });
  // Ask the interpreter to call sweep soon. If it does not, the next loader calls it.
  pipeline_->on_thread_end([]() noexcept {
    if (left.load(std::memory_order_acquire) == nullptr) return;
    Py_AddPendingCall(
        [](void*) {
          LoaderPipeline::sweep();
          return 0;
        },
        nullptr);
  });
}

std::shared_ptr<LoaderPipeline> LoaderPipeline::make(std::unique_ptr<Pipeline> pipeline, BatchForm form) {
  sweep();
  return {new LoaderPipeline(std::move(pipeline), std::move(form)), &leave};
}

void LoaderPipeline::push_left(LoaderPipeline* pipeline) noexcept {
  pipeline->next_left_ = left.load(std::memory_order_relaxed);
  while (!left.compare_exchange_weak(pipeline->next_left_, pipeline, std::memory_order_acq_rel,
                                     std::memory_order_relaxed)) {
  }
}

void LoaderPipeline::leave(LoaderPipeline* pipeline) noexcept {
  if (pipeline->pipeline_->join(Deadline{})) {
    delete pipeline;
    return;
  }
  push_left(pipeline);
  sweep();  // its workers may have ended between the check above and the push
}

bool LoaderPipeline::sweep() noexcept {
  bool all = true;
  LoaderPipeline* pipeline = left.exchange(nullptr, std::memory_order_acq_rel);
  while (pipeline != nullptr) {
    LoaderPipeline* const next = pipeline->next_left_;
    if (pipeline->pipeline_->join(Deadline{})) {
      delete pipeline;
    } else {
      all = false;
      push_left(pipeline);
    }
    pipeline = next;
  }
  return all;
}

LoaderPipeline::~LoaderPipeline() {
  {
    const GilRelease release;  // a worker may want it to finish
    pipeline_->join();
  }
  forget_errors();
}

bool LoaderPipeline::join(double seconds, bool signals) {
  pipeline_->close();  // wakes all waiting threads, which then return
  if (reader_.here() || pipeline_->on_own_thread()) return true;
  const Deadline deadline = deadline_in(std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)));
  for (;;) {
    {
      const GilRelease release;  // a worker may want it to finish
      const Deadline slice = std::min(deadline, deadline_in(kSlice));
      // In a forked child, the thread that holds the reader's lock may not exist.
      if (pipeline_->forked()) return pipeline_->join();
      if (const std::unique_lock<Reader> lock(reader_, slice); lock && pipeline_->join(slice)) return true;
    }
    if (Clock::now() >= deadline) return false;
    if (signals && PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

py::object LoaderPipeline::take_error(int64_t batch) {
  const std::lock_guard<std::mutex> lock(errors_mutex_);
  const auto found = errors_.find(batch);
  if (found == errors_.end()) return py::none();
  auto error = py::reinterpret_steal<py::object>(found->second);
  errors_.erase(found);
  return error;
}

void LoaderPipeline::forget_errors() {
  std::map<int64_t, PyObject*> errors;
  {
    const std::lock_guard<std::mutex> lock(errors_mutex_);
    errors.swap(errors_);
  }
  for (auto& [batch, error] : errors) Py_XDECREF(error);
}

// Calls a method of the Pass, and throws what it raises. (It keeps pointers and no owners on the stack: gil.h says why.)
void LoaderPipeline::ask(Delivered what, int64_t waited_ns, PyObject* reading) {
  PyObject* answer = nullptr;
  switch (what) {
    case Delivered::kTimeout:
    case Delivered::kHeld: {
      const long held = what == Delivered::kHeld ? static_cast<long>(pipeline_->held()) : -1;
      answer = PyObject_CallMethod(reading, "waited", "dl", static_cast<double>(waited_ns) * 1e-9, held);
      break;
    }
    case Delivered::kFailed: {
      const PartBlock& part = pipeline_->failed_part();
      answer = PyObject_CallMethod(reading, "failed", "lLLis", static_cast<long>(pipeline_->failed_stripe()),
                                   static_cast<long long>(pipeline_->delivered()),
                                   static_cast<long long>(part.failed_sample), static_cast<int>(part.status.code()),
                                   part.status.message());
      break;
    }
    default: answer = PyObject_CallMethod(reading, "closed", nullptr);
  }
  if (!answer) throw py::error_already_set();
  Py_DECREF(answer);
  if (what == Delivered::kFailed || what == Delivered::kClosed) {
    throw Error(Code::kInternal, "[loader] a loader's Pass did not raise");
  }
}

bool LoaderPipeline::next(Delivery* delivery, PyObject* reading) {
  Delivered result = Delivered::kTimeout;
  // If a batch is ready, take it without releasing the GIL.
  if (pipeline_->options().workers > 0) result = pipeline_->next(delivery, Deadline{}, {0, 0});
  int64_t since = 0;
  bool collected = false;
  try {
    while (result != Delivered::kBatch && result != Delivered::kEnd) {
      // Reference cycles may hold batches, so collect garbage. Do it once per wait, and not at its beginning, because it takes
      // long and a batch in use may come back sooner.
      if (result == Delivered::kHeld && since != 0 && !std::exchange(collected, true)) collect_garbage();
      if (since == 0) {
        since = monotonic_ns();
        if (result == Delivered::kFailed || result == Delivered::kClosed) ask(result, 0, reading);
      } else {
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        ask(result, monotonic_ns() - since, reading);
      }
      const GilRelease release;
      const Deadline slice = deadline_in(kSlice);
      const uint32_t returns = pipeline_->slots()->returns();
      result = pipeline_->next(delivery, slice);
      if (result == Delivered::kHeld) pipeline_->slots()->wait_returned(returns, slice);
    }
  } catch (const abi::__forced_unwind&) {
    throw;
  } catch (...) {
    raise_current_exception();
    return false;
  }
  return result == Delivered::kBatch;
}

// Hold the reader's lock only during a slice: between two slices Python may run, and may want to end the pipeline.
Delivered LoaderPipeline::next_in_slice(Delivery* delivery, Deadline slice) {
  const std::unique_lock<Reader> lock(reader_, slice);
  if (!lock) return Delivered::kTimeout;
  const uint32_t returns = pipeline_->slots()->returns();
  const Delivered result = pipeline_->next(delivery, slice);
  if (result == Delivered::kHeld) pipeline_->slots()->wait_returned(returns, slice);
  return result;
}

Status LoaderPipeline::next_natively(Delivery* delivery, PyObject* reading, Deadline deadline) {
  if (reader_.here()) {
    return {Code::kClosed,
            "[loader] this pass is being read by this thread already: a signal handler, a finalizer or the source's "
            "function must not read it too"};
  }
  const int64_t since = monotonic_ns();
  for (;;) {
    const Delivered result = next_in_slice(delivery, std::min(deadline, deadline_in(kSlice)));
    if (result == Delivered::kBatch) return {};
    if (result == Delivered::kEnd) {
      *delivery = {};
      return {};
    }
    const Status status = with_python([&]() -> Status {
      try {
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        ask(result, monotonic_ns() - since, reading);
      } catch (const abi::__forced_unwind&) {
        throw;
      } catch (...) {
        raise_current_exception();
        return hold_python_error();
      }
      return {};
    });
    if (!status.ok()) return status;
    if (Clock::now() >= deadline) return Status(Code::kTimeout, "[loader] no batch yet");
  }
}

}  // namespace gradring
