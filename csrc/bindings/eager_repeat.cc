#include "bindings/eager_repeat.h"

#include <cstring>

#include "bindings/array.h"
#include "bindings/eager_op.h"
#include "bindings/few_of.h"
#include "bindings/gil.h"
#include "runtime/default_team.h"

namespace gradring {

namespace {

using Api = py::detail::npy_api;

bool is_immutable(PyObject* value) noexcept {
  if (value == Py_None || PyBool_Check(value) || PyFloat_CheckExact(value) || PyLong_CheckExact(value) ||
      PyUnicode_CheckExact(value)) {
    return true;
  }
  if (!PyTuple_CheckExact(value)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i)
    if (!is_immutable(PyTuple_GET_ITEM(value, i))) return false;
  return true;
}

// Compares floats by value, because a loop that computes a float makes a new object each time.
bool same_float(PyObject* a, PyObject* b) noexcept {
  return PyFloat_CheckExact(a) && PyFloat_CheckExact(b) &&
         std::memcmp(&reinterpret_cast<PyFloatObject*>(a)->ob_fval, &reinterpret_cast<PyFloatObject*>(b)->ob_fval,
                     sizeof(double)) == 0;
}

// Whether two calls name their arguments alike. A call f(**options) makes a new tuple of names each time.
bool same_names(PyObject* a, PyObject* b) noexcept {
  if (a == b) return true;
  if (!a || !b || PyTuple_GET_SIZE(a) != PyTuple_GET_SIZE(b)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a); ++i)
    if (PyTuple_GET_ITEM(a, i) != PyTuple_GET_ITEM(b, i)) return false;
  return true;
}

// The parameter that takes argument i, where arguments are counted first by position and then by name. -1 if there is none.
int parameter_of(const EagerBinding& b, Py_ssize_t i, Py_ssize_t count, PyObject* keywords) noexcept {
  if (i < count) return static_cast<int>(i);
  PyObject* const name = PyTuple_GET_ITEM(keywords, i - count);
  for (size_t k = 0; k < b.parameters.size(); ++k)
    if (b.parameters[k].name == name) return static_cast<int>(k);
  return -1;
}

Tensor tensor_of(PyObject* array, Dtype dtype) noexcept {
  const auto* proxy = py::detail::array_proxy(array);
  return {proxy->data, reinterpret_cast<const int64_t*>(proxy->dimensions),
          reinterpret_cast<const int64_t*>(proxy->strides), proxy->nd, dtype};
}

}  // namespace

void run_kernels(const OpCall& call, const OpWork& work, OpRun first, OpRun second) {
  const MaybeReleaseGil released(work.operations);
  if (work.lanes <= 1 && work.scratch.per_lane == 0 && work.scratch.shared == 0) {
    const Lane lane = lone_lane();
    first(lane, call);
    if (second) second(lane, call);
    return;
  }
  TeamLease team(work.lanes, work.scratch.per_lane, work.scratch.shared);
  if (!call.op->each) return team.run([&](const Lane& lane) { first(lane, call); });
  const double nanoseconds = work.operations / 80;
  if (!second) return team.run_each(nanoseconds, [&](const Lane& lane) { first(lane, call); });
  team.run_each(nanoseconds / 2, [&](const Lane& lane) { first(lane, call); });
  team.run_each(nanoseconds, [&](const Lane& lane) { second(lane, call); });
}

void KnownCall::forget() noexcept {
  if (count_ < 0) return;
  for (int i = 0; i < count_; ++i) {
    Py_CLEAR(arguments_[static_cast<size_t>(i)].constant);
    Py_CLEAR(arguments_[static_cast<size_t>(i)].descriptor);
  }
  for (Result& result : results_) Py_CLEAR(result.descriptor);
  Py_CLEAR(keywords_);
  count_ = -1;
}

bool KnownCall::repeated(PyObject* const* given, Py_ssize_t count, PyObject* keywords) const noexcept {
  if (count_ < 0 || count != by_position_ || !same_names(keywords, keywords_)) return false;
  constexpr int kNeeded = Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_C_CONTIGUOUS_;
  PyTypeObject* const array_type = Api::get().PyArray_Type_;
  for (int i = 0; i < count_; ++i) {
    const Argument& known = arguments_[static_cast<size_t>(i)];
    PyObject* const value = given[i];
    if (known.constant) {
      if (value != known.constant && !same_float(value, known.constant)) return false;
      continue;
    }
    if (Py_TYPE(value) != array_type) return false;
    const auto* array = py::detail::array_proxy(value);
    if (array->descr != known.descriptor || array->nd != known.rank || (array->flags & kNeeded) != kNeeded)
      return false;
    for (int axis = 0; axis < known.rank; ++axis)
      if (array->dimensions[axis] != known.shape[static_cast<size_t>(axis)]) return false;
  }
  return lanes_ == default_lanes() && isa_ == active_isa() && products_ == default_products() &&
         (out_ < 0 || out_fits(given));
}

bool KnownCall::out_fits(PyObject* const* given) const noexcept {
  const auto* out = py::detail::array_proxy(given[out_]);
  if ((out->flags & Api::NPY_ARRAY_WRITEABLE_) == 0) return false;
  const Argument& result = arguments_[static_cast<size_t>(out_)];
  const auto begin = reinterpret_cast<uintptr_t>(out->data);
  for (int i = 0; i < count_; ++i) {
    const Argument& known = arguments_[static_cast<size_t>(i)];
    if (i == out_ || known.constant) continue;
    const auto other = reinterpret_cast<uintptr_t>(py::detail::array_proxy(given[i])->data);
    if (begin + result.bytes <= other || other + known.bytes <= begin) continue;
    if (out_apart_ || begin != other || result.dtype != known.dtype || result.bytes != known.bytes) return false;
  }
  return true;
}

void KnownCall::remember(const EagerBinding& b, PyObject* const* given, Py_ssize_t count, PyObject* keywords,
                         const Facts& facts) {
  const Py_ssize_t total = count + (keywords ? PyTuple_GET_SIZE(keywords) : 0);
  if (total > kMostArguments || b.results.size() > kMostResults) return;
  for (size_t p = 0; p < b.parameters.size(); ++p)
    if (b.parameters[p].draws && (!facts.values[p] || facts.values[p] == Py_None)) return;
  std::array<Argument, kMostArguments> arguments;
  int out = -1;
  for (Py_ssize_t i = 0; i < total; ++i) {
    const int p = parameter_of(b, i, count, keywords);
    if (p < 0) return;
    const EagerParameter& parameter = b.parameters[static_cast<size_t>(p)];
    Argument& argument = arguments[static_cast<size_t>(i)];
    int operand = -1;
    if (parameter.kind == ParameterKind::kOut && given[i] != Py_None) {
      if (b.results.size() != 1) return;
      operand = b.results[0];
      out = static_cast<int>(i);
    } else if ((parameter.kind == ParameterKind::kOperand || parameter.kind == ParameterKind::kFactor) &&
               facts.arrays[parameter.first]) {
      operand = parameter.first;
      if (b.op->operands[static_cast<size_t>(operand)].access != Access::kRead) return;
    } else {
      if (!is_immutable(given[i])) return;
      argument.constant = given[i];
      continue;
    }
    const Array& used = facts.arrays[operand];
    // A call that copied or converted an argument, or that got a subclass of ndarray, cannot be repeated by its arrays' memory only.
    if (used.object() != given[i] || Py_TYPE(given[i]) != Api::get().PyArray_Type_ || !used.contiguous() ||
        used.dimensions() > kMostRank) {
      return;
    }
    argument.operand = operand;
    argument.descriptor = py::detail::array_proxy(given[i])->descr;
    argument.dtype = used.dtype();
    argument.rank = used.dimensions();
    for (int axis = 0; axis < argument.rank; ++axis) argument.shape[static_cast<size_t>(axis)] = used.size(axis);
    argument.bytes = static_cast<size_t>(used.elements() * used.item_bytes());
  }
  std::array<Result, kMostResults> results;
  for (size_t k = 0; !facts.number && out < 0 && k < b.results.size(); ++k) {
    const Array& made = facts.arrays[b.results[k]];
    if (!made) continue;
    if (made.dimensions() > kMostRank) return;
    Result& result = results[k];
    result.operand = b.results[k];
    result.descriptor = py::detail::array_proxy(made.object())->descr;
    result.dtype = made.dtype();
    result.rank = made.dimensions();
    for (int axis = 0; axis < result.rank; ++axis) result.shape[static_cast<size_t>(axis)] = made.size(axis);
  }
  forget();
  for (Py_ssize_t i = 0; i < total; ++i) {
    Py_XINCREF(arguments[static_cast<size_t>(i)].constant);
    Py_XINCREF(arguments[static_cast<size_t>(i)].descriptor);
  }
  for (const Result& result : results) Py_XINCREF(result.descriptor);
  arguments_ = arguments;
  results_ = results;
  count_ = static_cast<int>(total);
  by_position_ = count;
  keywords_ = keywords ? Py_NewRef(keywords) : nullptr;
  lanes_ = facts.lanes;
  isa_ = active_isa();
  products_ = default_products();
  out_ = out;
  out_apart_ = out >= 0 && b.op->operands[static_cast<size_t>(b.results[0])].apart;
  number_ = facts.number;
  first_ = facts.first;
  second_ = facts.second;
  work_ = *facts.work;
  for (size_t i = 0; i < b.op->attributes.size(); ++i) attributes_[i] = facts.call->attributes[i];
}

PyObject* KnownCall::run(const EagerBinding& b, PyObject* const* given) const {
  // Copy everything first: while the kernel runs without the GIL, another thread's call may overwrite this object.
  const OpSchema& op = *b.op;
  FewOf<Tensor, EagerBinding::kMostOperands> tensors(op.operands.size());
  AttributeValue attributes[EagerBinding::kMostAttributes];
  for (size_t i = 0; i < op.attributes.size(); ++i) attributes[i] = attributes_[i];
  for (int i = 0; i < count_; ++i) {
    const Argument& argument = arguments_[static_cast<size_t>(i)];
    if (!argument.constant) tensors[argument.operand] = tensor_of(given[i], argument.dtype);
  }
  const auto count = static_cast<int>(b.results.size());
  FewOf<Array, kMostResults> results(count);
  for (int k = 0; k < count; ++k) {
    const Result& result = results_[static_cast<size_t>(k)];
    if (!result.descriptor) continue;
    results[k] = Array::empty_of(result.descriptor, result.rank, result.shape.data());
    tensors[result.operand] = tensor_of(results[k].object(), result.dtype);
  }
  int64_t hidden[kHiddenWords];
  if (b.hidden >= 0) tensors[b.hidden] = hidden_tensor(hidden);
  const bool number = number_;
  PyObject* const out = out_ < 0 ? nullptr : given[out_];
  const OpCall call{&op, b.name, b.operand_names, tensors.data(), attributes};
  run_kernels(call, OpWork(work_), first_, second_);
  if (op.verify) op.verify(call);
  if (out) return Py_NewRef(out);
  return returned(b, call, number, [&](int k) { return results[k] ? results[k].release() : Py_NewRef(Py_None); });
}

}  // namespace gradring
