// The arguments of eager ops: converts Python objects to attribute values, and answers questions about the memory of arrays.
#pragma once

#include "bindings/array.h"
#include "bindings/eager_op.h"
#include "ops/layout.h"

namespace gradring {

// Assigns arguments to parameters, as borrowed references; null where none was given. Raises TypeError for arguments that the op
// does not have.
void parse_arguments(const EagerBinding& binding, PyObject* const* given, Py_ssize_t count, PyObject* keywords,
                     PyObject** values);

double number_argument(const char* op, const char* name, PyObject* value);
int64_t integer_argument(const char* op, const char* name, PyObject* value);
// Accepts bools, NumPy's too, and 0 and 1.
bool flag_argument(const char* op, const char* name, PyObject* value);
void pair_argument(const char* op, const char* name, PyObject* value, double* first, double* second);
// A dtype's name, or any argument of numpy.dtype.
Dtype dtype_argument(const char* op, const char* name, PyObject* value);
AttributeValue attribute_argument(const char* op, const Attribute& attribute, const char* name, PyObject* value);

// Whether the object is an array with at least one axis. Numbers, NumPy's included, are not.
bool is_array_with_axes(PyObject* value) noexcept;
// Returns the array converted to int64.
Array widened(const Array& array);

inline Dtype first_dtype(DtypeSet dtypes) noexcept { return static_cast<Dtype>(__builtin_ctz(dtypes)); }

// Whether a kernel can read the array (or write it, if it is a result) where it lies.
inline bool lies_well(const Operand& operand, const Array& array) noexcept {
  if (array.contiguous()) return true;
  if (array.dimensions() != 2) return false;
  const int64_t shape[] = {array.size(0), array.size(1)}, strides[] = {array.stride(0), array.stride(1)};
  return has_dense_vectors(operand.layout, shape, strides, array.item_bytes(), operand.layout == Layout::kMatrix);
}

// The number of elements from one row of a result of Layout::kRows to the next.
inline int64_t row_distance(const Array& array) noexcept {
  if (array.dimensions() != 2) return array.dimensions() ? array.size(array.dimensions() - 1) : 1;
  return array.size(0) <= 1 ? array.size(1) : array.stride(0) / array.item_bytes();
}

// Whether both are contiguous and consist of the same elements.
inline bool lies_on(const Array& result, const Array& input) noexcept {
  return input.data() == result.data() && input.dtype() == result.dtype() && input.contiguous() &&
         result.contiguous() && input.elements() == result.elements();
}
// Whether two contiguous arrays share no byte.
inline bool apart(const Array& result, const Array& input) noexcept {
  const auto a = reinterpret_cast<uintptr_t>(result.data()), b = reinterpret_cast<uintptr_t>(input.data());
  return a + static_cast<uintptr_t>(result.elements() * result.item_bytes()) <= b ||
         b + static_cast<uintptr_t>(input.elements() * input.item_bytes()) <= a;
}

// Runs a call. Returns null if a Python error is set.
PyObject* eager_call(const EagerBinding& binding, PyObject* const* given, Py_ssize_t count,
                     PyObject* keywords) noexcept;

}  // namespace gradring
