#include "bindings/batch_iterator.h"

#include <cmath>
#include <new>
#include <utility>

namespace gradring {

namespace {

constexpr auto kSlice = std::chrono::milliseconds(50);

int64_t now_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

struct IteratorObject {
  PyObject_HEAD
  std::shared_ptr<LoaderRun> run;
  PyObject* watcher;
  bool finished;
};

IteratorObject* as_iterator(PyObject* object) { return reinterpret_cast<IteratorObject*>(object); }

int iterator_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(as_iterator(object)->watcher);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int iterator_clear(PyObject* object) {
  Py_CLEAR(as_iterator(object)->watcher);
  return 0;
}

void iterator_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  IteratorObject* self = as_iterator(object);
  // Workers go on to the end of the batch that they are at, and nobody waits for them here.
  self->run->pipeline().stop();
  self->run.~shared_ptr();
  Py_CLEAR(self->watcher);
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_Del(object);
  Py_DECREF(type);
}

PyObject* iterator_next(PyObject* object) {
  IteratorObject* self = as_iterator(object);
  if (self->finished) return nullptr;
  const int64_t asked = now_ns();
  LoaderRun& run = *self->run;
  std::unique_lock<std::mutex> lock(run.mutex(), std::try_to_lock);
  if (!lock.owns_lock()) {
    const py::gil_scoped_release release;
    lock.lock();
  }
  if (self->finished) return nullptr;
  Delivery delivery;
  const uint64_t ready = run.pipeline().counters().ready.load(std::memory_order_relaxed);
  if (!run.next(&delivery, self->watcher)) {
    self->finished = true;
    return nullptr;
  }
  PyObject* batch = run.form().make(run.pipeline().slots(), run.pipeline().layout(), delivery.slot, delivery.rows);
  if (run.pipeline().counters().ready.load(std::memory_order_relaxed) != ready) {
    run.hand_off().add(now_ns() - asked);
  }
  return batch;
}

PyTypeObject* iterator_type() {
  static PyTypeObject* const type = [] {
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
    return reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  }();
  return type;
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

bool LoaderRun::raise_trouble(Delivered what, PyObject* watcher) {
  if (what == Delivered::kEnd) return false;
  try {
    const py::handle ask(watcher);
    if (what == Delivered::kFailed) {
      const PartBlock& part = pipeline_->failed_part();
      ask.attr("failed")(pipeline_->failed_lane(), pipeline_->delivered(), part.failed_sample,
                         static_cast<int>(part.status.code()), part.status.message());
    } else {
      ask.attr("closed")();
    }
    PyErr_SetString(PyExc_SystemError, "[loader] a loader's watcher did not raise");
  } catch (py::error_already_set& error) {
    error.restore();
  }
  return false;
}

bool LoaderRun::next(Delivery* delivery, PyObject* watcher) {
  Delivered result = Delivered::kTimeout;
  // A ready batch costs no switch of the interpreter's lock.
  if (pipeline_->options().workers > 0) result = pipeline_->next(delivery, Deadline{}, {0, 0});
  int64_t since = 0;
  while (result == Delivered::kTimeout || result == Delivered::kHeld) {
    const bool held = result == Delivered::kHeld;
    if (since == 0) {
      since = now_ns();
      if (held) PyGC_Collect();  // batches in reference cycles
    } else {
      if (PyErr_CheckSignals() != 0) return false;
      try {
        const int64_t out = held ? static_cast<int64_t>(pipeline_->held()) : -1;
        py::handle(watcher).attr("waited")(static_cast<double>(now_ns() - since) * 1e-9, out);
      } catch (py::error_already_set& error) {
        error.restore();
        return false;
      }
    }
    const py::gil_scoped_release release;
    const Deadline slice = deadline_in(kSlice);
    const uint32_t returns = pipeline_->slots()->returns();
    result = pipeline_->next(delivery, slice);
    if (result == Delivered::kHeld) pipeline_->slots()->wait_returned(returns, slice);
  }
  return result == Delivered::kBatch || raise_trouble(result, watcher);
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
