// A light view of NumPy arrays for the eager operations: no pybind11 casters, no NumPy headers, about ten
// nanoseconds an argument. Anything but a plain, aligned, native-endian ndarray goes through Python once
// (gradring.ops._convert.as_array), which accepts DLPack and __array_interface__ and writes the error messages.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>

#include "ops/op.h"
#include "runtime/dtype.h"
#include "runtime/status.h"

namespace py = pybind11;

namespace gradring {

inline constexpr int kNumpyHalf = 23;  // NPY_HALF, which pybind11 does not name
// The type number that the package ml_dtypes got for bfloat16 from NumPy; negative until the first use. The GIL guards it.
inline int numpy_bfloat16 = -1;

// Through Python: a new reference to a plain ndarray.
PyObject* convert_array(const char* op, const char* argument, PyObject* object);

// A strong reference to an ndarray (or to nothing), and what kernels need of it. Strides are in bytes.
class Array {
 public:
  Array() noexcept = default;
  Array(Array&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  Array& operator=(Array&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Array() { Py_XDECREF(object_); }

  explicit operator bool() const noexcept { return object_ != nullptr; }
  PyObject* object() const noexcept { return object_; }
  PyObject* release() noexcept { return std::exchange(object_, nullptr); }

  int dimensions() const noexcept { return proxy()->nd; }
  int64_t size(int axis) const noexcept { return proxy()->dimensions[axis]; }
  int64_t stride(int axis) const noexcept { return proxy()->strides[axis]; }
  const int64_t* shape() const noexcept { return reinterpret_cast<const int64_t*>(proxy()->dimensions); }
  int64_t elements() const noexcept {
    int64_t count = 1;
    for (int axis = 0; axis < dimensions(); ++axis) count *= size(axis);
    return count;
  }
  template <class T = void>
  T* data() const noexcept {
    return reinterpret_cast<T*>(proxy()->data);
  }
  Dtype dtype() const noexcept;
  int64_t item_bytes() const noexcept { return static_cast<int64_t>(size_of(dtype())); }
  bool writeable() const noexcept { return py::detail::check_flags(object_, Api::NPY_ARRAY_WRITEABLE_); }
  bool contiguous() const noexcept { return py::detail::check_flags(object_, Api::NPY_ARRAY_C_CONTIGUOUS_); }
  bool same_shape(const Array& other) const noexcept;
  std::string shape_text() const;  // "(3, 4)"

  // An input of any strides. What is not a plain ndarray of a known dtype is converted, or TypeError is raised.
  static Array input(const char* op, const char* argument, PyObject* object);
  // The same, C-contiguous: copied only if it is not.
  static Array dense(const char* op, const char* argument, PyObject* object);
  // A C-contiguous copy.
  Array copy() const;
  // New and uninitialized, C-contiguous.
  static Array empty(Dtype dtype, int dimensions, const int64_t* shape);
  // The same, of a dtype that NumPy describes.
  static Array empty_of(PyObject* descriptor, int dimensions, const int64_t* shape);
  static Array empty_like(const Array& other) { return empty(other.dtype(), other.dimensions(), other.shape()); }
  // The array given as out=: an ndarray of this dtype and shape, writeable; otherwise TypeError or ValueError. Any
  // strides: see contiguous() and assign(). null or None: a new array.
  static Array output(const char* op, const char* argument, PyObject* given, Dtype dtype, int dimensions,
                      const int64_t* shape);
  // What kernels see; valid as long as this array is.
  Tensor tensor() const noexcept {
    return {proxy()->data, shape(), reinterpret_cast<const int64_t*>(proxy()->strides), proxy()->nd, dtype()};
  }
  // ValueError if it cannot be written to.
  void require_writeable(const char* op, const char* argument) const;
  // Copies values of the same shape into this array, whatever its strides.
  void assign(const Array& values) const;

  // ValueError if the two share an element: results must not overwrite what is still to be read.
  void require_apart(const char* op, const char* argument, const Array& input, const char* input_name) const;

 private:
  using Api = py::detail::npy_api;
  explicit Array(PyObject* owned) noexcept : object_(owned) {}
  const py::detail::PyArray_Proxy* proxy() const noexcept { return py::detail::array_proxy(object_); }

  PyObject* object_ = nullptr;
};

inline Array Array::input(const char* op, const char* argument, PyObject* object) {
  constexpr int kNeeded = Api::NPY_ARRAY_ALIGNED_;
  if (Py_TYPE(object) == Api::get().PyArray_Type_ && py::detail::check_flags(object, kNeeded)) {
    Py_INCREF(object);
    Array array(object);
    if (array.dtype() != kNoDtype) return array;
  }
  return Array(convert_array(op, argument, object));
}

inline Dtype Array::dtype() const noexcept {
  const auto* descriptor = py::detail::array_descriptor_proxy(proxy()->descr);
  if (descriptor->byteorder == '>') return kNoDtype;
  switch (descriptor->type_num) {
    case Api::NPY_FLOAT_: return Dtype::kFloat32;
    case Api::NPY_DOUBLE_: return Dtype::kFloat64;
    case Api::NPY_INT_: return Dtype::kInt32;
    case Api::NPY_LONG_:
    case Api::NPY_LONGLONG_: return Dtype::kInt64;
    case Api::NPY_UBYTE_: return Dtype::kUint8;
    case Api::NPY_BOOL_: return Dtype::kBool;
    case Api::NPY_BYTE_: return Dtype::kInt8;
    case Api::NPY_SHORT_: return Dtype::kInt16;
    case Api::NPY_USHORT_: return Dtype::kUint16;
    case Api::NPY_UINT_: return Dtype::kUint32;
    case Api::NPY_ULONG_:
    case Api::NPY_ULONGLONG_: return Dtype::kUint64;
    case kNumpyHalf: return Dtype::kFloat16;
    default: return descriptor->type_num == numpy_bfloat16 ? Dtype::kBfloat16 : kNoDtype;
  }
}

inline bool Array::same_shape(const Array& other) const noexcept {
  if (dimensions() != other.dimensions()) return false;
  for (int axis = 0; axis < dimensions(); ++axis)
    if (size(axis) != other.size(axis)) return false;
  return true;
}

}  // namespace gradring
