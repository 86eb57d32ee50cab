// Lease: the Python object that owns a batch's slot, and the arrays over it.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "bindings/bindings.h"
#include "loader/control.h"
#include "loader/slots.h"

namespace gradring {

// The form in which Python gets a batch: one array, or a tuple, a list or a dict of arrays.
class BatchForm {
 public:
  enum class Kind : uint8_t { kSingle, kTuple, kList, kDict };
  // `fields` has, for each field, its name, its numpy.dtype and the shape of a row, which has as many bytes as the native row.
  BatchForm(Kind kind, const std::vector<FieldSpec>& fields, const py::list& looks);

  // Makes arrays over the slot whose base object is a new lease, and returns them as one new reference. If it fails, it gives the
  // slot back and returns null with a Python error set.
  PyObject* make(const std::shared_ptr<SlotPool>& pool, const SlotLayout& layout, uint32_t slot, int64_t rows) const;

 private:
  PyObject* array(size_t field, std::byte* data, int64_t rows, PyObject* lease) const;

  Kind kind_;
  std::vector<std::vector<Py_ssize_t>> shapes_;  // shapes of the arrays; the first axis, the rows, is filled in later
  std::vector<py::object> dtypes_;
  std::vector<py::object> names_;
};

}  // namespace gradring
