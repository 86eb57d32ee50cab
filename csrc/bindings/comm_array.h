// NumPy arrays as operands of collectives: any strides and alignment, 16-bit floats included.
#pragma once

#include <pybind11/numpy.h>

#include "bindings/bindings.h"
#include "comm/operand.h"
#include "ops/combine/element.h"

namespace gradring {

struct CommArray {
  PyObject* object = nullptr;  // a borrowed reference
  Element element = Element::kFloat32;
  CommOperand operand;

  const py::detail::PyArray_Proxy* proxy() const noexcept { return py::detail::array_proxy(object); }
  int axes() const noexcept { return proxy()->nd; }
  int64_t size(int axis) const noexcept { return proxy()->dimensions[axis]; }
  std::string shape() const;
};

// Raises TypeError unless the object is an ndarray of a dtype that collectives know, or of 16-bit integers whose real dtype the
// name `dtype` gives. Raises ValueError if it must be written to and is read-only.
CommArray comm_array(const char* op, const char* argument, PyObject* object, PyObject* dtype, bool written);

// Raises ValueError if `out` and `in` overlap, unless they are the very same array.
void require_apart_or_same(const char* op, const CommArray& out, const CommArray& in, bool may_be_same);

}  // namespace gradring
