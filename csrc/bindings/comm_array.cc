#include "bindings/comm_array.h"

#include <string>

namespace gradring {

namespace {

using Api = py::detail::npy_api;
constexpr int kHalf = 23;  // NPY_HALF

bool known_number(int number, Element* element) noexcept {
  switch (number) {
    case Api::NPY_FLOAT_: *element = Element::kFloat32; return true;
    case Api::NPY_DOUBLE_: *element = Element::kFloat64; return true;
    case kHalf: *element = Element::kFloat16; return true;
    case Api::NPY_BYTE_: *element = Element::kInt8; return true;
    case Api::NPY_SHORT_: *element = Element::kInt16; return true;
    case Api::NPY_INT_: *element = Element::kInt32; return true;
    case Api::NPY_LONG_:
    case Api::NPY_LONGLONG_: *element = Element::kInt64; return true;
    case Api::NPY_UBYTE_: *element = Element::kUint8; return true;
    case Api::NPY_USHORT_: *element = Element::kUint16; return true;
    case Api::NPY_UINT_: *element = Element::kUint32; return true;
    case Api::NPY_ULONG_:
    case Api::NPY_ULONGLONG_: *element = Element::kUint64; return true;
    case Api::NPY_BOOL_: *element = Element::kBool; return true;
    default: return false;
  }
}

std::string prefix(const char* op, const char* argument) { return "[" + std::string(op) + "] " + argument; }

}  // namespace

std::string CommArray::shape() const { return py::str(py::handle(object).attr("shape")).cast<std::string>(); }

CommArray comm_array(const char* op, const char* argument, PyObject* object, PyObject* dtype, bool written) {
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t));
  if (!Api::get().PyArray_Check_(object)) {
    throw py::type_error(prefix(op, argument) + " is a " + Py_TYPE(object)->tp_name +
                         ": must be a numpy.ndarray; numpy.asarray makes one, of a tensor's memory too");
  }
  CommArray array;
  array.object = object;
  const auto* proxy = array.proxy();
  const auto* descriptor = py::detail::array_descriptor_proxy(proxy->descr);
  bool known = descriptor->byteorder != '>' && known_number(descriptor->type_num, &array.element);
  if (dtype || !known) {
    const std::string name = py::str(dtype ? py::handle(dtype) : py::handle(proxy->descr)).cast<std::string>();
    const auto item = py::handle(proxy->descr).attr("itemsize").cast<int64_t>();
    if (name == "bfloat16" && item == 2) {
      array.element = Element::kBfloat16;
    } else if (dtype || !known) {
      throw py::type_error(prefix(op, argument) + " is of dtype " + name +
                           ": must be float32, float64, float16, bfloat16, bool or an integer, in this machine's byte "
                           "order; convert it with .astype");
    }
  }
  if (written && !py::detail::check_flags(object, Api::NPY_ARRAY_WRITEABLE_)) {
    throw py::value_error(prefix(op, argument) + " is read-only: give out=, or a copy");
  }
  if (py::detail::check_flags(object, Api::NPY_ARRAY_C_CONTIGUOUS_)) {
    int64_t elements = 1;
    for (int axis = 0; axis < proxy->nd; ++axis) elements *= proxy->dimensions[axis];
    array.operand = CommOperand(proxy->data, elements, size_of(array.element));
  } else {
    array.operand = CommOperand(proxy->data, proxy->nd, reinterpret_cast<const int64_t*>(proxy->dimensions),
                                reinterpret_cast<const int64_t*>(proxy->strides), size_of(array.element));
    if (written && array.operand.overlaps_itself()) {
      throw py::value_error(prefix(op, argument) + " has elements that share memory: give a copy");
    }
  }
  return array;
}

void require_apart_or_same(const char* op, const CommArray& out, const CommArray& in, bool may_be_same) {
  if (out.object == in.object && may_be_same) return;
  const auto a = out.operand.extent(), b = in.operand.extent();
  if (a.begin >= b.end || b.begin >= a.end) return;
  const auto* x = out.proxy();
  const auto* y = in.proxy();
  bool same = may_be_same && x->data == y->data && x->nd == y->nd;
  for (int axis = 0; same && axis < x->nd; ++axis)
    same = x->dimensions[axis] == y->dimensions[axis] && x->strides[axis] == y->strides[axis];
  if (same) return;
  const bool shared = py::module_::import("gradring.ops._convert")
                          .attr("may_share")(py::handle(out.object), py::handle(in.object))
                          .cast<bool>();
  if (shared) {
    throw py::value_error("[" + std::string(op) + "] out shares memory with x: give it memory of its own" +
                          (may_be_same ? ", or x itself" : ""));
  }
}

}  // namespace gradring
