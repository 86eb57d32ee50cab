#include "bindings/array.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "bindings/fast_call.h"

namespace gradring {

namespace {

using Api = py::detail::npy_api;

int type_number(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32: return Api::NPY_FLOAT_;
    case Dtype::kFloat64: return Api::NPY_DOUBLE_;
    case Dtype::kInt32: return Api::NPY_INT32_;
    case Dtype::kInt64: return Api::NPY_INT64_;
    case Dtype::kUint8: return Api::NPY_UBYTE_;
    case Dtype::kInt8: return Api::NPY_BYTE_;
    case Dtype::kInt16: return Api::NPY_SHORT_;
    case Dtype::kUint16: return Api::NPY_USHORT_;
    case Dtype::kUint32: return Api::NPY_UINT32_;
    case Dtype::kUint64: return Api::NPY_UINT64_;
    case Dtype::kFloat16: return kNumpyHalf;
    case Dtype::kBfloat16:
      if (numpy_bfloat16 < 0) py::module_::import("gradring.ops._convert").attr("learn_bfloat16")();
      return numpy_bfloat16;
    default: return Api::NPY_BOOL_;
  }
}

// Takes over the reference to the descriptor, even if it fails, as NumPy's function does.
PyObject* new_array(PyObject* descriptor, int dimensions, const int64_t* shape) {
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t));
  const auto& api = Api::get();
  PyObject* const made =
      api.PyArray_NewFromDescr_(api.PyArray_Type_, descriptor, dimensions, reinterpret_cast<const Py_intptr_t*>(shape),
                                nullptr, nullptr, 0, nullptr);
  if (!made) throw py::error_already_set();
  return made;
}

struct Bytes {
  uintptr_t begin, end;
};

Bytes extent(const Array& array) noexcept {
  auto begin = reinterpret_cast<uintptr_t>(array.data());
  uintptr_t end = begin + static_cast<uintptr_t>(array.item_bytes());
  for (int axis = 0; axis < array.dimensions(); ++axis) {
    if (array.size(axis) == 0) return {begin, begin};
    const int64_t reach = (array.size(axis) - 1) * array.stride(axis);
    if (reach < 0) {
      begin -= static_cast<uintptr_t>(-reach);
    } else {
      end += static_cast<uintptr_t>(reach);
    }
  }
  return {begin, end};
}

}  // namespace

PyObject* convert_array(const char* op, const char* argument, PyObject* object) {
  return py::module_::import("gradring.ops._convert")
      .attr("as_array")(op, argument, py::handle(object))
      .release()
      .ptr();
}

std::string Array::shape_text() const { return gradring::shape_text(dimensions(), shape()); }

Array Array::copy() const {
  Array copied(Api::get().PyArray_NewCopy_(object_, 0));
  if (!copied) throw py::error_already_set();
  return copied;
}

Array Array::dense(const char* op, const char* argument, PyObject* object) {
  Array array = input(op, argument, object);
  return array.contiguous() ? std::move(array) : array.copy();
}

Array Array::empty(Dtype dtype, int dimensions, const int64_t* shape) {
  PyObject* const descriptor = Api::get().PyArray_DescrFromType_(type_number(dtype));
  if (!descriptor) throw py::error_already_set();
  return Array(new_array(descriptor, dimensions, shape));
}

Array Array::empty_of(PyObject* descriptor, int dimensions, const int64_t* shape) {
  return Array(new_array(Py_NewRef(descriptor), dimensions, shape));
}

Array Array::output(const char* op, const char* argument, PyObject* given, Dtype dtype, int dimensions,
                    const int64_t* shape) {
  if (!given_or_null(given)) return empty(dtype, dimensions, shape);
  if (!Api::get().PyArray_Check_(given)) {
    throw py::type_error("[" + std::string(op) + "] " + argument + " is a " + Py_TYPE(given)->tp_name +
                         ": must be a numpy.ndarray, because it is written to");
  }
  Py_INCREF(given);
  Array array(given);
  if (array.dtype() != dtype || !py::detail::check_flags(given, Api::NPY_ARRAY_ALIGNED_)) {
    throw py::type_error("[" + std::string(op) + "] " + argument + " is of dtype " +
                         py::str(py::handle(given).attr("dtype")).cast<std::string>() + ": must be an aligned " +
                         dtype_name(dtype) + ", as the inputs are");
  }
  bool same = array.dimensions() == dimensions;
  for (int axis = 0; same && axis < dimensions; ++axis) same = array.size(axis) == shape[axis];
  if (!same) {
    throw py::value_error("[" + std::string(op) + "] " + argument + " is " + array.shape_text() + ": must be " +
                          gradring::shape_text(dimensions, shape));
  }
  array.require_writeable(op, argument);
  array.require_distinct(op, argument);
  return array;
}

void Array::require_writeable(const char* op, const char* argument) const {
  if (!writeable()) throw py::value_error("[" + std::string(op) + "] " + argument + " is read-only");
}

void Array::require_distinct(const char* op, const char* argument) const {
  // In order of their strides, each axis must step over all that the axes before it reach. Slices and
  // transposed views of arrays do so. A view that does not may reach one place twice.
  if (elements() == 0 || py::detail::check_flags(object_, Api::NPY_ARRAY_C_CONTIGUOUS_)) return;
  std::array<int, 64> axes{};  // the most that NumPy allows
  int count = 0;
  for (int axis = 0; axis < dimensions(); ++axis)
    if (size(axis) > 1) axes[static_cast<size_t>(count++)] = axis;
  const auto step = [this](int axis) { return std::abs(stride(axis)); };
  std::sort(axes.begin(), axes.begin() + count, [&](int a, int b) { return step(a) < step(b); });
  int64_t reach = static_cast<int64_t>(size_of(dtype()));
  for (int i = 0; i < count; ++i) {
    const int axis = axes[static_cast<size_t>(i)];
    if (step(axis) < reach) {
      throw py::value_error("[" + std::string(op) + "] " + argument +
                            " may have several elements in one place (a stride of " + std::to_string(stride(axis)) +
                            " bytes along axis " + std::to_string(axis) + "): give it memory for each of them");
    }
    reach += (size(axis) - 1) * step(axis);
  }
}

void Array::assign(const Array& values) const {
  if (Api::get().PyArray_CopyInto_(object_, values.object_) < 0) throw py::error_already_set();
}

void Array::require_apart(const char* op, const char* argument, const Array& input, const char* input_name) const {
  const Bytes mine = extent(*this), other = extent(input);
  if (mine.begin >= other.end || other.begin >= mine.end) return;
  // Although the two ranges of memory overlap, interleaved views may have no element in common.
  const bool shared = py::module_::import("gradring.ops._convert")
                          .attr("may_share")(py::handle(object_), py::handle(input.object_))
                          .cast<bool>();
  if (!shared) return;
  throw py::value_error("[" + std::string(op) + "] " + argument + " shares memory with " + input_name +
                        ": give it memory of its own");
}

}  // namespace gradring
