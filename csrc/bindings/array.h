// A light view of NumPy arrays for the eager operations. It uses neither pybind11's casters nor NumPy's headers, and takes about
// ten nanoseconds per argument. Everything that is not a plain, aligned ndarray in this machine's byte order is first converted
// by Python (gradring.ops._convert.as_array), which accepts DLPack and __array_interface__ and raises the errors.
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

inline constexpr int kNumpyHalf = 23;  // NPY_HALF, which pybind11 does not define
// The type number that NumPy gave to the bfloat16 of the package ml_dtypes; negative until the first use. The GIL guards it.
inline int numpy_bfloat16 = -1;

// Converts an object to a plain ndarray by calling Python. Returns a new reference.
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

  // Makes an input, of any strides. It converts other objects than plain ndarrays of known dtypes, or raises TypeError.
  static Array input(const char* op, const char* argument, PyObject* object);
  // Returns this array if it is C-contiguous, else a C-contiguous copy.
  static Array dense(const char* op, const char* argument, PyObject* object);
  // Returns a C-contiguous copy.
  Array copy() const;
  // Makes a new array, C-contiguous and uninitialized.
  static Array empty(Dtype dtype, int dimensions, const int64_t* shape);
  // Does the same for a dtype that is given as NumPy's descriptor.
  static Array empty_of(PyObject* descriptor, int dimensions, const int64_t* shape);
  static Array empty_like(const Array& other) { return empty(other.dtype(), other.dimensions(), other.shape()); }
  // The array that was given as out=: a writeable ndarray of this dtype and shape, with any strides (see contiguous() and
  // assign()); anything else raises TypeError or ValueError. A new array if `given` is null or None.
  static Array output(const char* op, const char* argument, PyObject* given, Dtype dtype, int dimensions,
                      const int64_t* shape);
  // The array as kernels take it. It is valid as long as this object lives.
  Tensor tensor() const noexcept {
    return {proxy()->data, shape(), reinterpret_cast<const int64_t*>(proxy()->strides), proxy()->nd, dtype()};
  }
  // Raises ValueError if the array is read-only.
  void require_writeable(const char* op, const char* argument) const;
  // Raises ValueError if two elements may lie in one place.
  void require_distinct(const char* op, const char* argument) const;
  // Copies values of the same shape into this array, which may have any strides.
  void assign(const Array& values) const;

  // Raises ValueError if the two arrays share an element, because a result must not overwrite input that is still to be read.
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
