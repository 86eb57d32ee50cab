#include "bindings/batch_iterator.h"

#include <new>
#include <utility>

#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "bindings/heap_type.h"
#include "bindings/held_error.h"
#include "runtime/clock.h"

namespace gradring {

namespace {

struct IteratorObject {
  PyObject_HEAD std::shared_ptr<LoaderPipeline> pipeline;
  PyObject* reading;  // the Pass: the right to read the pipeline
  bool finished;
};

IteratorObject* as_iterator(PyObject* object) { return reinterpret_cast<IteratorObject*>(object); }

int iterator_traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(as_iterator(object)->reading);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

// Ends the pass, if it has not ended yet: the workers stop after their current sample, and the caller does
// not wait for them. This comes before the Pass is freed, because another thread may begin the next pass
// over the same pipeline as soon as it is. An iterator that has finished does not touch the pipeline any
// more.
void end_pass(IteratorObject* self) noexcept {
  if (!std::exchange(self->finished, true)) self->pipeline->native().stop();
}

int iterator_clear(PyObject* object) {
  end_pass(as_iterator(object));
  Py_CLEAR(as_iterator(object)->reading);
  return 0;
}

void iterator_dealloc(PyObject* object) {
  PyObject_GC_UnTrack(object);
  IteratorObject* self = as_iterator(object);
  end_pass(self);
  self->pipeline.~shared_ptr();
  Py_CLEAR(self->reading);
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_Del(object);
  Py_DECREF(type);
}

PyObject* iterator_next(PyObject* object) {
  IteratorObject* self = as_iterator(object);
  if (self->finished) return nullptr;
  const int64_t asked = monotonic_ns();
  LoaderPipeline& pipeline = *self->pipeline;
  if (pipeline.reader().here()) {
    set_python_error({Code::kClosed,
                      "[loader] this iterator is being read by this thread already: a signal handler, a finalizer or "
                      "the source's function must not read it too"});
    return nullptr;
  }
  std::unique_lock<Reader> lock(pipeline.reader(), std::try_to_lock);
  if (!lock) {
    const GilRelease release;
    lock.lock();
  }
  if (self->finished) return nullptr;
  Delivery delivery;
  const uint64_t ready = pipeline.native().counters().ready.load(std::memory_order_relaxed);
  if (!pipeline.next(&delivery, self->reading)) {
    const bool failed = PyErr_Occurred() != nullptr;
    // At the end of an epoch nothing is left to stop; after a failure other workers may still fill batches.
    if (failed) end_pass(self);
    self->finished = true;
    lock.unlock();  // Do this first, because the next lines may destroy the loader, which joins its workers.
    PyObject* const reading = std::exchange(self->reading, nullptr);
    PyObject* told = failed ? nullptr : PyObject_CallMethod(reading, "finished", nullptr);
    Py_XDECREF(told);
    Py_DECREF(reading);
    return nullptr;
  }
  PyObject* batch =
      pipeline.form().make(pipeline.native().slots(), pipeline.native().layout(), delivery.slot, delivery.rows);
  if (pipeline.native().counters().ready.load(std::memory_order_relaxed) != ready) {
    pipeline.hand_off().add(monotonic_ns() - asked);
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

PyObject* new_batch_iterator(std::shared_ptr<LoaderPipeline> pipeline, py::object reading) {
  PyTypeObject* const type = iterator_type();
  auto* self = type ? PyObject_GC_New(IteratorObject, type) : nullptr;
  if (!self) throw py::error_already_set();
  new (&self->pipeline) std::shared_ptr<LoaderPipeline>(std::move(pipeline));
  self->reading = reading.release().ptr();
  self->finished = false;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(self));
  return reinterpret_cast<PyObject*>(self);
}

}  // namespace gradring
