#include "bindings/eager_op.h"

#include <string>
#include <utility>

#include "bindings/array.h"
#include "bindings/eager_arguments.h"
#include "bindings/eager_repeat.h"
#include "bindings/fast_call.h"
#include "bindings/few_of.h"
#include "ops/matmul/products.h"
#include "runtime/default_team.h"

namespace gradring {

namespace {

// Thrown where an argument lies in the memory of a device: gradring.ops._device then makes the call.
struct OnDevice {};

bool lies_on_device(PyObject* value) {
  if (py::detail::npy_api::get().PyArray_Check_(value) || PyFloat_Check(value) || PyLong_Check(value) ||
      PyUnicode_Check(value) || PyList_Check(value) || PyTuple_Check(value) || value == Py_None) {
    return false;
  }
  if (!PyObject_HasAttrString(value, "__cuda_array_interface__") && !PyObject_HasAttrString(value, "__dlpack__")) {
    return false;
  }
  return py::module_::import("gradring.cuda.foreign").attr("is_device_array")(py::handle(value)).cast<bool>();
}

// One call, from its arguments to its results. It holds references to all its arrays.
class EagerCall {
 public:
  explicit EagerCall(const EagerBinding& binding) noexcept
      : b_(binding),
        op_(*binding.op),
        tensors_(op_.operands.size()),
        arrays_(op_.operands.size()),
        originals_(op_.operands.size()) {
    const size_t attributes = op_.attributes.size();
    for (size_t i = 0; i < attributes; ++i) attributes_[i] = b_.presets[i];
    if (b_.method >= 0) attributes_[b_.method] = integer_value(static_cast<int64_t>(default_products()));
    call_ = {&op_, b_.name, b_.operand_names, tensors_.data(), attributes_};
  }

  PyObject* run(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
    parse_arguments(b_, given, count, keywords, values_);
    for (int i = 0; i < static_cast<int>(b_.parameters.size()); ++i) {
      if (!values_[i] && b_.parameters[static_cast<size_t>(i)].draws) values_[i] = Py_None;
      if (values_[i]) take(b_.parameters[static_cast<size_t>(i)], values_[i]);
    }
    if (b_.other_ranks && !ranks_fit()) return call_other_ranks();
    check_call(call_, false);
    if (axis_ >= 0) return along_another_axis();
    const bool number = b_.first_outcome >= 0 && call_.integer(b_.reduction) != 0;
    if (number && given_or_null(out_)) {
      refuse(call_, "out is given: the mean and the sum are numbers, out is for reduction='sample'");
    }
    if (!number) make_results();
    if (b_.hidden >= 0) tensors_[b_.hidden] = hidden_tensor(hidden_);
    if (b_.updates) require_updates_apart();
    const int lanes = default_lanes();
    OpWork work;
    op_.work(call_, lanes, &work);
    const OpRun first = op_.cpu(call_), second = op_.cpu_second ? op_.cpu_second(call_) : nullptr;
    run_kernels(call_, work, first, second);
    if (op_.verify) op_.verify(call_);
    if (b_.updates || outs_given_) write_back();
    b_.known.oldest().remember(b_, given, count, keywords,
                               {&call_, arrays_.data(), values_, &work, first, second, lanes, number});
    return returned(b_, call_, number, [this](int k) { return take_result(b_.results[static_cast<size_t>(k)]); });
  }

  // Reads the arguments anew, and leaves the call to Python: the arrays by the names of operands, and the rest.
  PyObject* run_on_device(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
    parse_arguments(b_, given, count, keywords, values_);
    py::dict operands;
    py::list attributes, unwanted;
    py::object axis = py::none(), out = py::none();
    for (size_t i = 0; i < b_.parameters.size(); ++i) {
      const EagerParameter& p = b_.parameters[i];
      PyObject* const value = !values_[i] && p.draws ? Py_None : values_[i];
      if (!value) continue;
      const bool array = p.kind == ParameterKind::kOperand || p.kind == ParameterKind::kFactor;
      if (p.kind == ParameterKind::kAxis) {
        axis = py::reinterpret_borrow<py::object>(value);
      } else if (p.kind == ParameterKind::kOut) {
        out = py::reinterpret_borrow<py::object>(value);
      } else if (p.kind == ParameterKind::kDtype) {
        take(p, value);
      } else if (array && (p.kind == ParameterKind::kOperand || is_array_with_axes(value) || lies_on_device(value))) {
        if (value != Py_None) operands[operand(p.first).name] = py::handle(value);
      } else {
        take(p, value);
      }
    }
    for (size_t i = 0; i < op_.attributes.size(); ++i) {
      if (op_.attributes[i].type == AttributeType::kReal) {
        attributes.append(attributes_[i].real);
      } else {
        attributes.append(attributes_[i].integer);
      }
    }
    for (size_t i = 0; i < op_.operands.size(); ++i)
      if ((unwanted_ & (1u << i)) != 0) unwanted.append(op_.operands[i].name);
    return py::module_::import("gradring.ops._device")
        .attr("call")(py::handle(b_.self), operands, attributes, unwanted, axis, out)
        .release()
        .ptr();
  }

 private:
  static constexpr int kOperands = EagerBinding::kMostOperands;

  const Operand& operand(int i) const noexcept { return op_.operands[static_cast<size_t>(i)]; }
  const char* operand_name(int i) const noexcept { return call_.operand_name(i); }

  void take(const EagerParameter& parameter, PyObject* value) {
    switch (parameter.kind) {
      case ParameterKind::kOperand:
        if (value != Py_None) take_array(parameter.first, value);
        return;
      case ParameterKind::kFactor:
        if (is_array_with_axes(value)) return take_array(parameter.first, value);
        if (lies_on_device(value)) throw OnDevice{};
        attributes_[parameter.second].real = number_argument(b_.name, parameter.text, value);
        return;
      case ParameterKind::kAttribute:
        if (parameter.first == b_.method) return take_method(parameter, value);
        attributes_[parameter.first] =
            attribute_argument(b_.name, op_.attributes[static_cast<size_t>(parameter.first)], parameter.text, value);
        return;
      case ParameterKind::kPair:
        return pair_argument(b_.name, parameter.text, value, &attributes_[parameter.first].real,
                             &attributes_[parameter.second].real);
      case ParameterKind::kNeed:
        if (!flag_argument(b_.name, parameter.text, value)) unwanted_ |= 1u << parameter.first;
        return;
      case ParameterKind::kAxis: return take_axis(value);
      case ParameterKind::kOut:
        if (lies_on_device(value)) throw OnDevice{};
        out_ = value;
        return;
      case ParameterKind::kDtype:
        if (value != Py_None) result_dtype_ = dtype_argument(b_.name, parameter.text, value);
        return;
    }
  }

  void take_method(const EagerParameter& parameter, PyObject* value) {
    if (value == Py_None) return;
    attributes_[b_.method] =
        attribute_argument(b_.name, op_.attributes[static_cast<size_t>(b_.method)], parameter.text, value);
    if (attributes_[b_.method].integer == 0) return;
    py::module_::import("gradring.float32_products").attr("warn_if_slow")(py::handle(value));
  }

  void take_array(int i, PyObject* value) {
    if (lies_on_device(value)) throw OnDevice{};
    const Operand& o = operand(i);
    Array array = Array::input(b_.name, operand_name(i), value);
    if (o.access != Access::kRead) {
      // The kernel writes to this very object, so a converted copy cannot replace it.
      array = Array::output(b_.name, operand_name(i), value, array.dtype(), array.dimensions(), array.shape());
    }
    if (o.widened != 0 && (o.widened & only(array.dtype())) != 0) array = widened(array);
    if (!lies_well(o, array)) {
      originals_[i] = std::move(array);
      array = originals_[i].copy();
    }
    tensors_[i] = array.tensor();
    arrays_[i] = std::move(array);
  }

  // The object that the caller gave for an operand.
  const Array& original(int i) const noexcept { return originals_[i] ? originals_[i] : arrays_[i]; }

  void take_axis(PyObject* value) {
    const int64_t axis = integer_argument(b_.name, "axis", value);
    const int rank = tensors_[0].rank;
    if (rank == 0) return;  // check_call refuses it
    if (axis < -rank || axis >= rank) {
      refuse(call_, "axis is " + std::to_string(axis) + ", " + operand_name(0) + " is " + shape_text(tensors_[0]) +
                        ": must be between " + std::to_string(-rank) + " and " + std::to_string(rank - 1));
    }
    const auto place = static_cast<int>(axis < 0 ? axis + rank : axis);
    if (place != rank - 1) axis_ = place;
  }

  // Runs the op on views whose last axis is the given one.
  PyObject* along_another_axis() {
    py::list operands;
    for (size_t i = 0; i < b_.parameters.size(); ++i) {
      if (b_.parameters[i].kind == ParameterKind::kOperand && values_[i]) operands.append(py::handle(values_[i]));
    }
    return py::module_::import("gradring.ops._axis")
        .attr("with_axis_last")(py::handle(b_.self), operands, axis_, out_ ? py::handle(out_) : py::handle(Py_None))
        .release()
        .ptr();
  }

  bool ranks_fit() const noexcept {
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      const int rank = tensors_[static_cast<int>(i)].rank;
      if (tensors_[static_cast<int>(i)] && (rank < op_.operands[i].least_rank || rank > op_.operands[i].most_rank))
        return false;
    }
    return true;
  }

  PyObject* call_other_ranks() {
    check_dtypes(call_);
    py::dict arguments;
    for (size_t i = 0; i < b_.parameters.size(); ++i) {
      if (values_[i]) arguments[py::handle(b_.parameters[i].name)] = py::handle(values_[i]);
    }
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      if (arrays_[i])
        arguments[py::str(operand_name(static_cast<int>(i)))] = py::handle(original(static_cast<int>(i)).object());
    }
    return py::handle(b_.other_ranks)(**arguments).release().ptr();
  }

  void make_results() {
    PyObject* const given = given_or_null(out_);
    const size_t count = b_.results.size();
    if (given && count > 1 && (!PyTuple_Check(given) || PyTuple_GET_SIZE(given) != static_cast<Py_ssize_t>(count))) {
      throw py::type_error("[" + std::string(b_.name) + "] out must be a tuple (" + result_names() +
                           ") of arrays or None");
    }
    for (size_t k = 0; k < count; ++k) {
      const int i = b_.results[k];
      if ((unwanted_ & (1u << i)) != 0) continue;
      PyObject* const own = !given ? nullptr : count == 1 ? given : given_or_null(PyTuple_GET_ITEM(given, k));
      make_result(i, operand_name(i), own);
    }
    if (b_.takes_results) make_given_results();
    if (outs_given_) together();
  }

  // Takes arrays that came as arguments and are written to, such as linear's pre.
  void make_given_results() {
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      if (arrays_[i] && op_.operands[i].access == Access::kWrite && !is_result(static_cast<int>(i))) {
        Array array = std::move(originals_[i] ? originals_[i] : arrays_[i]);
        originals_[i] = Array();
        make_result(static_cast<int>(i), operand_name(static_cast<int>(i)), array.object());
      }
    }
  }

  bool is_result(int i) const noexcept {
    for (const int result : b_.results)
      if (result == i) return true;
    return false;
  }

  void make_result(int i, const char* name, PyObject* given) {
    const Operand& o = operand(i);
    Shape shape;
    const int64_t* extent = shape.extent;
    if (o.like >= 0) {
      shape.rank = tensors_[o.like].rank;
      extent = tensors_[o.like].shape;
    } else {
      op_.shape(call_, i, &shape);
    }
    const Dtype dtype = o.same_dtype >= 0        ? dtype_of_result(o, given)
                        : o.dtype_attribute >= 0 ? static_cast<Dtype>(call_.integer(o.dtype_attribute))
                                                 : first_dtype(o.dtypes);
    if (!given) {
      arrays_[i] = Array::empty(dtype, shape.rank, extent);
      tensors_[i] = arrays_[i].tensor();
      return;
    }
    outs_given_ = true;
    Array array = Array::output(b_.name, name, given, dtype, shape.rank, extent);
    bool direct = lies_well(o, array);
    for (int k = 0; k < static_cast<int>(op_.operands.size()); ++k) {
      if (k == i || !arrays_[k]) continue;
      const bool reads = operand(k).access != Access::kWrite;
      if (o.apart || !reads) {
        if (reads || k < i || is_result(k)) array.require_apart(b_.name, name, original(k), operand_name(k));
      } else {
        direct = direct && (lies_on(array, arrays_[k]) || apart(array, arrays_[k]));
      }
    }
    if (direct) {
      arrays_[i] = std::move(array);
    } else {
      arrays_[i] = Array::empty(dtype, shape.rank, extent);
      originals_[i] = std::move(array);
    }
    tensors_[i] = arrays_[i].tensor();
  }

  // The dtype of a result that takes that of another operand. If it may also be float32, `dtype` or the given array decides.
  Dtype dtype_of_result(const Operand& o, PyObject* given) const {
    const Dtype dtype = tensors_[o.same_dtype].dtype;
    if (!o.or_float32) return dtype;
    if (result_dtype_ != kNoDtype) {
      if (takes_dtype(o, result_dtype_, dtype)) return result_dtype_;
      const std::string must = std::string(dtype_name(dtype)) + (is_narrow(dtype) ? " or float32" : "");
      throw py::type_error("[" + std::string(b_.name) + "] dtype is " + dtype_name(result_dtype_) + ", " +
                           operand_name(o.same_dtype) + " is " + dtype_name(dtype) + ": must be " + must);
    }
    const bool wider = given && py::detail::npy_api::get().PyArray_Check_(given) &&
                       takes_dtype(o, Dtype::kFloat32, dtype) &&
                       py::detail::array_descriptor_proxy(py::detail::array_proxy(given)->descr)->type_num ==
                           py::detail::npy_api::NPY_FLOAT_;
    return wider ? Dtype::kFloat32 : dtype;
  }

  // Gives dense memory to results whose rows must be equally far apart and are not.
  void together() {
    for (size_t i = 0; i < op_.operands.size(); ++i) {
      const int other = op_.operands[i].rows_like;
      if (other < 0 || !tensors_[i] || row_distance(arrays_[i]) == row_distance(arrays_[other])) continue;
      for (const int k : {static_cast<int>(i), other}) {
        if (arrays_[k].contiguous()) continue;
        originals_[k] = std::move(arrays_[k]);
        arrays_[k] = Array::empty_like(originals_[k]);
        tensors_[k] = arrays_[k].tensor();
      }
    }
  }

  void require_updates_apart() const {
    const int count = static_cast<int>(op_.operands.size());
    for (int i = 0; i < count; ++i) {
      if (!arrays_[i] || operand(i).access != Access::kUpdate) continue;
      for (int k = 0; k < count; ++k) {
        if (k == i || !arrays_[k] || (operand(k).access == Access::kUpdate && k > i)) continue;
        original(i).require_apart(b_.name, operand_name(i), original(k), operand_name(k));
      }
    }
  }

  // Copies results from the copies that the kernel wrote to the arrays that the caller gave.
  void write_back() {
    for (int i = 0; i < static_cast<int>(op_.operands.size()); ++i) {
      if (originals_[i] && operand(i).access != Access::kRead) originals_[i].assign(arrays_[i]);
    }
  }

  PyObject* take_result(int i) noexcept {
    if (!arrays_[i]) return Py_NewRef(Py_None);
    return (originals_[i] ? originals_[i] : arrays_[i]).release();
  }

  std::string result_names() const {
    std::string text;
    for (const int i : b_.results) text += (text.empty() ? "" : ", ") + std::string(operand_name(i));
    return text;
  }

  const EagerBinding& b_;
  const OpSchema& op_;
  OpCall call_;
  PyObject* values_[EagerBinding::kMostParameters];
  AttributeValue attributes_[EagerBinding::kMostAttributes];
  FewOf<Tensor, kOperands> tensors_;
  FewOf<Array, kOperands> arrays_;     // what the kernel reads and writes
  FewOf<Array, kOperands> originals_;  // the caller's arrays, where the kernel works on a copy
  PyObject* out_ = nullptr;
  int axis_ = -1;
  Dtype result_dtype_ = kNoDtype;  // that `dtype` names
  uint32_t unwanted_ = 0;
  bool outs_given_ = false;
  int64_t hidden_[kHiddenWords];
};

}  // namespace

PyObject* eager_call(const EagerBinding& binding, PyObject* const* given, Py_ssize_t count,
                     PyObject* keywords) noexcept {
  try {
    if (const KnownCall* known = binding.known.find(given, count, keywords)) return known->run(binding, given);
    try {
      return EagerCall(binding).run(given, count, keywords);
    } catch (const OnDevice&) {
      return EagerCall(binding).run_on_device(given, count, keywords);
    }
  } catch (...) {
    raise_current_exception();
    return nullptr;
  }
}

}  // namespace gradring
