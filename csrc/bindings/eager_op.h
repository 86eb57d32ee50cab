// EagerOp: the Python callable of every op. An instance is bound to one op's schema and to the parameters of one Python
// function, which gradring.ops._eager reads from that function's signature.
//
// A call takes arguments by position and by name, without allocation. It accepts arrays of any strides and copies only those that
// the kernel cannot read in place. It checks everything by the schema, makes the results or writes into out=, and runs on the
// shared team, without the GIL if the work is long enough.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/eager_repeat.h"
#include "ops/loss/loss.h"
#include "ops/op.h"

namespace py = pybind11;

namespace gradring {

// The meaning of a Python parameter for the op.
enum class ParameterKind : uint8_t {
  kOperand,    // an array: operand `first`
  kFactor,     // an array: operand `first`; or a number: attribute `second`
  kAttribute,  // attribute `first`
  kPair,       // two numbers: attributes `first` and `second`
  kNeed,       // a flag: whether result `first` is wanted
  kAxis,       // an axis of the first operand; the op works along the last one
  kOut,        // the array that receives the result, or a tuple of them
  kDtype,      // the dtype of the results, where they may be of another one than the operands
};

struct EagerParameter {
  PyObject* name = nullptr;  // interned
  const char* text = nullptr;
  ParameterKind kind = ParameterKind::kOperand;
  bool required = false;
  bool draws = false;  // a call without this argument draws a seed
  int first = -1;
  int second = -1;
};

struct EagerBinding {
  static constexpr int kMostOperands = 12;
  static constexpr int kMostAttributes = KnownCall::kMostAttributes;
  static constexpr int kMostParameters = 16;

  PyObject* self = nullptr;  // the callable, borrowed
  const OpSchema* op = nullptr;
  const char* name = nullptr;
  std::vector<EagerParameter> parameters;
  int positional = 0;
  std::vector<int> results;    // operands that the call returns, in this order; with none it returns None
  int hidden = -1;             // a small result that only verify and number read, such as a loss's totals
  int reduction = -1;          // the attribute that says "sample", "mean" or "sum"; a number is op->number()
  int first_outcome = -1;      // the result that "mean" and "sum" replace by a number
  int method = -1;             // the attribute that says how to compute; where it is not given, default_products() says
  bool updates = false;        // an argument is updated in place
  bool takes_results = false;  // an argument is an array that receives a result
  const char* operand_names[kMostOperands] = {};
  AttributeValue presets[kMostAttributes] = {};
  // Called with all arguments if the op does not accept an operand's rank; null: such a call is an error.
  PyObject* other_ranks = nullptr;
  mutable KnownCalls known;
};

// A type for the memory of an op's hidden result.
inline constexpr int64_t kHiddenWords = sizeof(LossTotals) / sizeof(int64_t);
inline Tensor hidden_tensor(int64_t* words) noexcept {
  static constexpr int64_t kStride = sizeof(int64_t);
  return {words, &kHiddenWords, &kStride, 1, Dtype::kInt64};
}

// What a call returns to Python: a number, or its results, of which take(k) gives a new reference to the k-th: one of them, a
// tuple of several, or None.
template <class Take>
PyObject* returned(const EagerBinding& binding, const OpCall& call, bool number, Take&& take) {
  if (number) return PyFloat_FromDouble(call.op->number(call));
  const auto count = static_cast<int>(binding.results.size());
  if (count == 1) return take(0);
  if (count == 0) Py_RETURN_NONE;
  PyObject* const tuple = PyTuple_New(count);
  if (!tuple) throw py::error_already_set();
  for (int k = 0; k < count; ++k) PyTuple_SET_ITEM(tuple, k, take(k));
  return tuple;
}

// Adds ops() and make_eager_op() to the module.
void bind_eager_op(py::module_& m);

}  // namespace gradring
