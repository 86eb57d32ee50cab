#include "bindings/lease.h"

#include <new>
#include <utility>

#include "bindings/heap_type.h"

namespace gradring {

namespace {

struct LeaseObject {
  PyObject_HEAD std::shared_ptr<SlotPool> pool;
  uint32_t slot;
};

// This may run in any thread and at any time, also while the interpreter ends, so it touches no other Python object.
void lease_dealloc(PyObject* object) {
  auto* lease = reinterpret_cast<LeaseObject*>(object);
  lease->pool->give(lease->slot);
  lease->pool.~shared_ptr();
  PyTypeObject* type = Py_TYPE(object);
  PyObject_Free(object);
  Py_DECREF(type);
}

PyTypeObject* lease_type() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<PyTypeObject*> type;
  static PyType_Slot slots[] = {
      {Py_tp_dealloc, reinterpret_cast<void*>(&lease_dealloc)},
      {Py_tp_doc, const_cast<char*>("Owns a batch's memory while an array over it lives.")},
      {0, nullptr},
  };
  static PyType_Spec spec = {"gradring._core.Lease", sizeof(LeaseObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  return heap_type(type, spec);
}

PyObject* new_lease(const std::shared_ptr<SlotPool>& pool, uint32_t slot) {
  PyTypeObject* const type = lease_type();
  auto* lease = type ? PyObject_New(LeaseObject, type) : nullptr;
  if (!lease) {
    pool->give(slot);
    return nullptr;
  }
  new (&lease->pool) std::shared_ptr<SlotPool>(pool);
  lease->slot = slot;
  return reinterpret_cast<PyObject*>(lease);
}

}  // namespace

BatchForm::BatchForm(Kind kind, const std::vector<FieldSpec>& fields, const py::list& looks) : kind_(kind) {
  bool fits = looks.size() == fields.size() && (kind != Kind::kSingle || fields.size() == 1);
  for (size_t i = 0; fits && i < fields.size(); ++i) {
    const auto look = py::cast<py::tuple>(looks[i]);
    names_.push_back(py::cast<py::object>(look[0]));
    const auto dtype = py::cast<py::dtype>(look[1]);
    dtypes_.push_back(dtype);
    std::vector<Py_ssize_t> shape{0};
    auto bytes = static_cast<size_t>(dtype.itemsize());
    for (py::handle extent : py::cast<py::tuple>(look[2])) {
      shape.push_back(py::cast<Py_ssize_t>(extent));
      bytes *= static_cast<size_t>(shape.back());
    }
    shapes_.push_back(std::move(shape));
    fits = bytes == fields[i].row_bytes();
  }
  if (!fits) throw Error(Code::kInternal, "[loader] the batch's form does not fit its fields");
}

PyObject* BatchForm::array(size_t field, std::byte* data, int64_t rows, PyObject* lease) const {
  const auto& api = py::detail::npy_api::get();
  std::vector<Py_ssize_t> shape = shapes_[field];
  shape[0] = rows;
  PyObject* const dtype = dtypes_[field].ptr();
  Py_INCREF(dtype);  // taken over by the call
  constexpr int kFlags = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_ |
                         py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, dtype, static_cast<int>(shape.size()), shape.data(),
                                              nullptr, data, kFlags, nullptr);
  if (!array) return nullptr;
  Py_INCREF(lease);  // taken over by the call
  if (api.PyArray_SetBaseObject_(array, lease) < 0) {
    Py_DECREF(array);
    return nullptr;
  }
  return array;
}

PyObject* BatchForm::make(const std::shared_ptr<SlotPool>& pool, const SlotLayout& layout, uint32_t slot,
                          int64_t rows) const {
  PyObject* const lease = new_lease(pool, slot);
  if (!lease) return nullptr;
  std::byte* const data = pool->data(slot);
  const size_t count = shapes_.size();
  PyObject* batch = nullptr;
  if (kind_ == Kind::kSingle) {
    batch = array(0, data + layout.offsets[0], rows, lease);
  } else if (kind_ == Kind::kTuple) {
    batch = PyTuple_New(static_cast<Py_ssize_t>(count));
  } else if (kind_ == Kind::kList) {
    batch = PyList_New(static_cast<Py_ssize_t>(count));
  } else {
    batch = PyDict_New();
  }
  for (size_t i = 0; batch && kind_ != Kind::kSingle && i < count; ++i) {
    PyObject* item = array(i, data + layout.offsets[i], rows, lease);
    bool ok = item != nullptr;
    if (ok && kind_ == Kind::kTuple) {
      PyTuple_SET_ITEM(batch, static_cast<Py_ssize_t>(i), item);  // takes the reference
    } else if (ok && kind_ == Kind::kList) {
      PyList_SET_ITEM(batch, static_cast<Py_ssize_t>(i), item);
    } else if (ok) {
      ok = PyDict_SetItem(batch, names_[i].ptr(), item) == 0;
      Py_DECREF(item);
    }
    if (!ok) Py_CLEAR(batch);
  }
  Py_DECREF(lease);  // the arrays hold it now; if there are none, this returns the slot
  return batch;
}

}  // namespace gradring
