#include "bindings/batch_iterator.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "bindings/heap_type.h"
#include "bindings/held_error.h"
#include "runtime/clock.h"

namespace gradring {

namespace {

constexpr auto kSlice = std::chrono::milliseconds(50);

// Runs that nobody holds and whose workers were still at work.
std::atomic<LoaderRun*> left{nullptr};

struct IteratorObject {
  PyObject_HEAD std::shared_ptr<LoaderRun> run;
  PyObject* watcher;
  bool finished;
};

IteratorObject* as_iterator(PyObject* object) { return reinterpret_cast<IteratorObject*>(object); }

int iterator_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(as_iterator(object)->watcher);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

// Ends the pass, if it has not ended yet: its workers stop after their current sample, and the caller does not wait for them.
// The pass must end before its watcher goes, because whoever sees the watcher die may start the next pass over the same
// pipeline. An iterator that has finished touches the pipeline no more.
void end_pass(IteratorObject* self) noexcept {
  if (!std::exchange(self->finished, true)) self->run->pipeline().stop();
}

int iterator_clear(PyObject* object) {
  end_pass(as_iterator(object));
  Py_CLEAR(as_iterator(object)->watcher);
  return 0;
}

void iterator_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  IteratorObject* self = as_iterator(object);
  end_pass(self);
  self->run.~shared_ptr();
  Py_CLEAR(self->watcher);
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_Del(object);
  Py_DECREF(type);
}

PyObject* iterator_next(PyObject* object) {
  IteratorObject* self = as_iterator(object);
  if (self->finished) return nullptr;
  const int64_t asked = monotonic_ns();
  LoaderRun& run = *self->run;
  if (run.reader().here()) {
    set_python_error({Code::kClosed,
                      "[loader] this iterator is being read by this thread already: a signal handler, a finalizer or "
                      "the source's function must not read it too"});
    return nullptr;
  }
  std::unique_lock<Reader> reading(run.reader(), std::try_to_lock);
  if (!reading) {
    const GilRelease release;
    reading.lock();
  }
  if (self->finished) return nullptr;
  Delivery delivery;
  const uint64_t ready = run.pipeline().counters().ready.load(std::memory_order_relaxed);
  if (!run.next(&delivery, self->watcher)) {
    const bool failed = PyErr_Occurred() != nullptr;
    // At the end of an epoch nothing is left to stop; after a failure other workers may still fill batches.
    if (failed) end_pass(self);
    self->finished = true;
    reading.unlock();  // the loader may end here, and joins its workers
    PyObject* const watcher = std::exchange(self->watcher, nullptr);
    PyObject* told = failed ? nullptr : PyObject_CallMethod(watcher, "finished", nullptr);
    Py_XDECREF(told);
    Py_DECREF(watcher);
    return nullptr;
  }
  PyObject* batch = run.form().make(run.pipeline().slots(), run.pipeline().layout(), delivery.slot, delivery.rows);
  if (run.pipeline().counters().ready.load(std::memory_order_relaxed) != ready) {
    run.hand_off().add(monotonic_ns() - asked);
  }
  return batch;
}

PyTypeObject* iterator_type() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<PyTypeObject*> type;
  static PyType_Slot slots[] = {
      {Py_tp_dealloc, reinterpret_cast<void*>(&iterator_dealloc)},
      {Py_tp_traverse, reinterpret_cast<void*>(&iterator_traverse)},
      {Py_tp_clear, reinterpret_cast<void*>(&iterator_clear)},
      {Py_tp_iter, reinterpret_cast<void*>(&PyObject_SelfIter)},
      {Py_tp_iternext, reinterpret_cast<void*>(&iterator_next)},
      {Py_tp_doc, const_cast<char*>("One epoch of batches.")},
      {0, nullptr},
  };
  static PyType_Spec spec = {"gradring._core.BatchIterator", sizeof(IteratorObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  return heap_type(type, spec);
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

LoaderRun::LoaderRun(std::unique_ptr<Pipeline> pipeline, BatchForm form)
    : pipeline_(std::move(pipeline)), form_(std::move(form)) {
  // On a worker's thread.
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
  // The interpreter sweeps soon. Nothing is lost where it does not: the next loader does.
  pipeline_->on_thread_end([]() noexcept {
    if (left.load(std::memory_order_acquire) == nullptr) return;
    Py_AddPendingCall(
        [](void*) {
          LoaderRun::sweep();
          return 0;
        },
        nullptr);
  });
}

std::shared_ptr<LoaderRun> LoaderRun::make(std::unique_ptr<Pipeline> pipeline, BatchForm form) {
  sweep();
  return {new LoaderRun(std::move(pipeline), std::move(form)), &leave};
}

void LoaderRun::push_left(LoaderRun* run) noexcept {
  run->next_left_ = left.load(std::memory_order_relaxed);
  while (!left.compare_exchange_weak(run->next_left_, run, std::memory_order_acq_rel, std::memory_order_relaxed)) {
  }
}

void LoaderRun::leave(LoaderRun* run) noexcept {
  if (run->pipeline_->join(Deadline{})) {
    delete run;
    return;
  }
  push_left(run);
  sweep();  // its workers may have ended meanwhile, and told nobody
}

bool LoaderRun::sweep() noexcept {
  bool all = true;
  LoaderRun* run = left.exchange(nullptr, std::memory_order_acq_rel);
  while (run != nullptr) {
    LoaderRun* const next = run->next_left_;
    if (run->pipeline_->join(Deadline{})) {
      delete run;
    } else {
      all = false;
      push_left(run);
    }
    run = next;
  }
  return all;
}

LoaderRun::~LoaderRun() {
  {
    const GilRelease release;  // a worker may want it to finish
    pipeline_->join();
  }
  forget_errors();
}

bool LoaderRun::join(double seconds, bool signals) {
  pipeline_->close();  // whoever waits leaves
  if (reader_.here() || pipeline_->on_own_thread()) return true;
  const Deadline deadline = deadline_in(std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)));
  for (;;) {
    {
      const GilRelease release;  // a worker may want it to finish
      const Deadline slice = std::min(deadline, deadline_in(kSlice));
      // In a forked child the reader may be a thread that is not there.
      if (pipeline_->forked()) return pipeline_->join();
      if (const std::unique_lock<Reader> reading(reader_, slice); reading && pipeline_->join(slice)) return true;
    }
    if (Clock::now() >= deadline) return false;
    if (signals && PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

py::object LoaderRun::take_error(int64_t batch) {
  const std::lock_guard<std::mutex> lock(errors_mutex_);
  const auto found = errors_.find(batch);
  if (found == errors_.end()) return py::none();
  auto error = py::reinterpret_steal<py::object>(found->second);
  errors_.erase(found);
  return error;
}

void LoaderRun::forget_errors() {
  std::map<int64_t, PyObject*> errors;
  {
    const std::lock_guard<std::mutex> lock(errors_mutex_);
    errors.swap(errors_);
  }
  for (auto& [batch, error] : errors) Py_XDECREF(error);
}

// Asks the watcher; throws what it raises. (Pointers, not owners: see gil.h.)
void LoaderRun::ask(Delivered what, int64_t waited_ns, PyObject* watcher) {
  PyObject* answer = nullptr;
  switch (what) {
    case Delivered::kTimeout:
    case Delivered::kHeld: {
      const long held = what == Delivered::kHeld ? static_cast<long>(pipeline_->held()) : -1;
      answer = PyObject_CallMethod(watcher, "waited", "dl", static_cast<double>(waited_ns) * 1e-9, held);
      break;
    }
    case Delivered::kFailed: {
      const PartBlock& part = pipeline_->failed_part();
      answer = PyObject_CallMethod(watcher, "failed", "lLLis", static_cast<long>(pipeline_->failed_lane()),
                                   static_cast<long long>(pipeline_->delivered()),
                                   static_cast<long long>(part.failed_sample), static_cast<int>(part.status.code()),
                                   part.status.message());
      break;
    }
    default: answer = PyObject_CallMethod(watcher, "closed", nullptr);
  }
  if (!answer) throw py::error_already_set();
  Py_DECREF(answer);
  if (what == Delivered::kFailed || what == Delivered::kClosed) {
    throw Error(Code::kInternal, "[loader] a loader's watcher did not raise");
  }
}

// PyGC_Collect, also where the user has switched collecting off.
void collect_garbage() {
  PyObject* const module = PyImport_ImportModule("gc");
  PyObject* const found = module ? PyObject_CallMethod(module, "collect", nullptr) : nullptr;
  Py_XDECREF(module);
  if (!found) throw py::error_already_set();
  Py_DECREF(found);
}

bool LoaderRun::next(Delivery* delivery, PyObject* watcher) {
  Delivered result = Delivered::kTimeout;
  // A ready batch costs no switch of the interpreter's lock.
  if (pipeline_->options().workers > 0) result = pipeline_->next(delivery, Deadline{}, {0, 0});
  int64_t since = 0;
  bool collected = false;
  try {
    while (result != Delivered::kBatch && result != Delivered::kEnd) {
      // Batches may lie in reference cycles. Once a wait, and not at its beginning: it takes long, and a batch that is in
      // use may come back sooner.
      if (result == Delivered::kHeld && since != 0 && !std::exchange(collected, true)) collect_garbage();
      if (since == 0) {
        since = monotonic_ns();
        if (result == Delivered::kFailed || result == Delivered::kClosed) ask(result, 0, watcher);
      } else {
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        ask(result, monotonic_ns() - since, watcher);
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

Status LoaderRun::next_natively(Delivery* delivery, PyObject* watcher, Deadline deadline) {
  const int64_t since = monotonic_ns();
  for (;;) {
    const Deadline slice = std::min(deadline, deadline_in(kSlice));
    const uint32_t returns = pipeline_->slots()->returns();
    const Delivered result = pipeline_->next(delivery, slice);
    if (result == Delivered::kBatch) return {};
    if (result == Delivered::kEnd) {
      *delivery = {};
      return {};
    }
    if (result == Delivered::kHeld) pipeline_->slots()->wait_returned(returns, slice);
    const Status status = with_python([&]() -> Status {
      try {
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        ask(result, monotonic_ns() - since, watcher);
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

PyObject* new_batch_iterator(std::shared_ptr<LoaderRun> run, py::object watcher) {
  PyTypeObject* const type = iterator_type();
  auto* self = type ? PyObject_GC_New(IteratorObject, type) : nullptr;
  if (!self) throw py::error_already_set();
  new (&self->run) std::shared_ptr<LoaderRun>(std::move(run));
  self->watcher = watcher.release().ptr();
  self->finished = false;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(self));
  return reinterpret_cast<PyObject*>(self);
}

}  // namespace gradring
