#include "bindings/sample_form.h"

#include <algorithm>
#include <cstring>

#include "bindings/row_functions.h"
#include "loader/copy_row.h"

namespace gradring {

namespace {

using Api = py::detail::npy_api;

PyObject* kept(const std::shared_ptr<const void>& object) {
  return static_cast<PyObject*>(const_cast<void*>(object.get()));
}

bool is_array(PyObject* object) { return Api::get().PyArray_Check_(object); }

}  // namespace

SampleForm::SampleForm(Kind kind, const py::list& looks) : kind_(kind) {
  for (py::handle given : looks) {
    const auto look = py::cast<py::tuple>(given);
    const auto dtype = py::cast<py::dtype>(look[1]);
    Field field{keep(look[0]), keep(dtype), {}, static_cast<size_t>(dtype.itemsize())};
    for (py::handle extent : py::cast<py::tuple>(look[2])) {
      field.shape.push_back(py::cast<Py_ssize_t>(extent));
      field.bytes *= static_cast<size_t>(field.shape.back());
    }
    fields_.push_back(std::move(field));
  }
}

bool SampleForm::like(const Field& field, PyObject* array) const {
  const auto* proxy = py::detail::array_proxy(array);
  if (static_cast<size_t>(proxy->nd) != field.shape.size() ||
      !py::detail::check_flags(array, Api::NPY_ARRAY_C_CONTIGUOUS_)) {
    return false;
  }
  if (!std::equal(field.shape.begin(), field.shape.end(), proxy->dimensions)) return false;
  return proxy->descr == kept(field.dtype) || Api::get().PyArray_EquivTypes_(proxy->descr, kept(field.dtype));
}

SampleForm::Copied SampleForm::copy_field(size_t number, PyObject* value, std::byte* const* fields, int64_t row,
                                          bool streaming) const {
  const Field& field = fields_[number];
  PyObject* array = nullptr;
  if (is_array(value)) {
    Py_INCREF(value);
    array = value;
  } else {
    array = Api::get().PyArray_FromAny_(value, nullptr, 0, 0, 0, nullptr);  // numpy.asarray
    if (!array) return Copied::kError;
  }
  const bool fits = is_array(array) && like(field, array);
  if (fits) {
    std::byte* const to = fields[number] + static_cast<size_t>(row) * field.bytes;
    const auto* from = static_cast<const std::byte*>(static_cast<void*>(py::detail::array_proxy(array)->data));
    copy_row(to, from, field.bytes, streaming);
  }
  Py_DECREF(array);
  return fits ? Copied::kYes : Copied::kUnlike;
}

SampleForm::Copied SampleForm::copy(PyObject* sample, std::byte* const* fields, int64_t row, bool streaming) const {
  const auto count = static_cast<Py_ssize_t>(fields_.size());
  Copied result = Copied::kYes;
  switch (kind_) {
    case Kind::kSingle: return is_array(sample) ? copy_field(0, sample, fields, row, streaming) : Copied::kUnlike;
    case Kind::kTuple:
      if (!PyTuple_CheckExact(sample) || PyTuple_GET_SIZE(sample) != count) return Copied::kUnlike;
      for (Py_ssize_t i = 0; i < count && result == Copied::kYes; ++i) {
        result = copy_field(static_cast<size_t>(i), PyTuple_GET_ITEM(sample, i), fields, row, streaming);
      }
      return result;
    case Kind::kList:
      // Read the length each time, because converting an element to an array may run Python code, which may change the list.
      if (!PyList_CheckExact(sample)) return Copied::kUnlike;
      for (Py_ssize_t i = 0; i < count && result == Copied::kYes; ++i) {
        if (PyList_GET_SIZE(sample) != count) return Copied::kUnlike;
        PyObject* const item = PyList_GET_ITEM(sample, i);
        Py_INCREF(item);
        result = copy_field(static_cast<size_t>(i), item, fields, row, streaming);
        Py_DECREF(item);
      }
      return result;
    case Kind::kDict: break;
  }
  if (!PyDict_CheckExact(sample) || PyDict_GET_SIZE(sample) != count) return Copied::kUnlike;
  PyObject *key = nullptr, *value = nullptr;
  Py_ssize_t at = 0;
  for (size_t i = 0; i < fields_.size() && result == Copied::kYes; ++i) {
    // Take the fields in the order of fn(0), and only arrays, so that no Python code runs that could change the dict.
    if (!PyDict_Next(sample, &at, &key, &value) || !is_array(value) || !PyUnicode_CheckExact(key))
      return Copied::kUnlike;
    if (key != kept(fields_[i].name) && PyUnicode_Compare(key, kept(fields_[i].name)) != 0) return Copied::kUnlike;
    result = copy_field(i, value, fields, row, streaming);
  }
  return result;
}

}  // namespace gradring
