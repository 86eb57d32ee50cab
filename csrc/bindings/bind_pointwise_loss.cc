// mse and binary_cross_entropy on NumPy arrays, and their vjps.
#include "bindings/bindings.h"
#include "bindings/loss_arguments.h"
#include "ops/pointwise_loss/pointwise_loss.h"

namespace gradring {

namespace {

// Predictions and targets of one shape; the first axis counts the samples.
struct Problem {
  Array predictions, targets;
  int64_t rows = 0, columns = 0;

  Problem(const char* op, const char* prediction_name, PyObject* prediction, const char* target_name, PyObject* target)
      : predictions(Array::dense(op, prediction_name, prediction)), targets(Array::dense(op, target_name, target)) {
    require_same_float(op, predictions, prediction_name, targets, target_name);
    require_same_shape(op, predictions, prediction_name, targets, target_name);
    if (predictions.dimensions() == 0) {
      throw py::value_error("[" + std::string(op) + "] " + prediction_name +
                            " is a scalar: must have at least one dimension, of samples");
    }
    rows = predictions.size(0);
    columns = 1;
    for (int axis = 1; axis < predictions.dimensions(); ++axis) columns *= predictions.size(axis);
  }

  template <class T>
  PointwiseLossArguments<T> arguments(PointwiseLoss kind) const {
    PointwiseLossArguments<T> g;
    g.kind = kind, g.rows = rows, g.columns = columns;
    g.predictions = predictions.data<T>(), g.targets = targets.data<T>();
    return g;
  }
};

// ValueError, as for labels, where a target of the cross entropy is no probability.
void require_probabilities(const char* op, const LossTotals& totals) {
  if (totals.bad_row < 0) return;
  throw py::value_error("[" + std::string(op) + "] a target of sample " + std::to_string(totals.bad_row) +
                        " is no probability: targets must be from 0 to 1 (divide 0..255 by 255; (t + 1) / 2 makes " +
                        "0 and 1 of -1 and 1)");
}

template <class T>
void run(const PointwiseLossArguments<T>& g) {
  const int lanes = pointwise_loss_lanes(g, default_lanes());
  run_lanes(static_cast<double>(g.rows * g.columns) * 20, lanes, pointwise_loss_scratch(g, lanes),
            [&](const Lane& lane) { pointwise_loss(lane, g); });
}

PyObject* forward(const char* op, const Parameters<4>& parameters, PointwiseLoss kind, const char* prediction,
                  const char* target, PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  PyObject* values[4];
  parameters.parse(given, count, keywords, values);
  const Problem problem(op, prediction, values[0], target, values[1]);
  const Reduction reduction = reduction_argument(op, values[2], Reduction::kMean);
  LossTotals totals;
  if (reduction != Reduction::kSample) {
    require_no_out(op, values[3]);
    for_float(problem.predictions.dtype(), [&](auto type) {
      auto g = problem.arguments<decltype(type)>(kind);
      g.totals = &totals;
      run(g);
    });
    require_probabilities(op, totals);
    const double samples = totals.loss * static_cast<double>(reduction == Reduction::kSum ? problem.columns : 1);
    return reduced(samples, problem.rows, reduction);
  }
  Result losses(op, values[3], problem.predictions.dtype(), 1, &problem.rows, {&problem.predictions, &problem.targets});
  for_float(problem.predictions.dtype(), [&](auto type) {
    auto g = problem.arguments<decltype(type)>(kind);
    g.losses = losses.data<decltype(type)>();
    g.totals = &totals;
    run(g);
  });
  require_probabilities(op, totals);
  return losses.finish();
}

PyObject* backward(const char* op, const Parameters<5>& parameters, PointwiseLoss kind, const char* prediction,
                   const char* target, PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  PyObject* values[5];
  parameters.parse(given, count, keywords, values);
  const Problem problem(op, prediction, values[1], target, values[2]);
  const Reduction reduction = reduction_argument(op, values[3], Reduction::kMean);
  const Cotangent dloss(op, "dloss", values[0], reduction, problem.predictions, 1, problem.rows);
  Result gradient(op, values[4], problem.predictions,
                  dloss.samples
                      ? std::initializer_list<const Array*>{&problem.predictions, &problem.targets, &dloss.samples}
                      : std::initializer_list<const Array*>{&problem.predictions, &problem.targets});
  LossTotals totals;
  for_float(problem.predictions.dtype(), [&](auto type) {
    using T = decltype(type);
    auto g = problem.arguments<T>(kind);
    g.gradient = gradient.data<T>();
    g.dlosses = dloss.data<T>();
    g.scale = static_cast<T>(dloss.number * static_cast<double>(reduction == Reduction::kSum ? g.columns : 1));
    g.totals = &totals;
    run(g);
  });
  require_probabilities(op, totals);
  return gradient.finish();
}

PyObject* call_mse(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<4> parameters("mse", 2, 2, {"pred", "target", "reduction", "out"});
  return forward("mse", parameters, PointwiseLoss::kMse, "pred", "target", given, count, keywords);
}
PyObject* call_mse_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<5> parameters("mse_vjp", 3, 3, {"dloss", "pred", "target", "reduction", "out"});
  return backward("mse_vjp", parameters, PointwiseLoss::kMse, "pred", "target", given, count, keywords);
}
PyObject* call_binary(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<4> parameters("binary_cross_entropy", 2, 2, {"logits", "targets", "reduction", "out"});
  return forward("binary_cross_entropy", parameters, PointwiseLoss::kBinaryCrossEntropy, "logits", "targets", given,
                 count, keywords);
}
PyObject* call_binary_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<5> parameters("binary_cross_entropy_vjp", 3, 3,
                                        {"dloss", "logits", "targets", "reduction", "out"});
  return backward("binary_cross_entropy_vjp", parameters, PointwiseLoss::kBinaryCrossEntropy, "logits", "targets",
                  given, count, keywords);
}

constexpr const char* kMseDoc =
    R"(mse(pred: ArrayLike, target: ArrayLike, *, reduction: str = 'mean', out: NDArray | None = None) -> typing.Any

The mean of ``(pred - target) ** 2``.

Args:
    pred: (samples, ...); float32 or float64.
    target: shape and dtype as pred.
    reduction: "mean" or "sum" over everything, as a float; "sample" for one mean per sample, (samples,).
    out: where to write the samples' losses; only for "sample".

>>> import numpy as np, gradring as gr
>>> pred = np.array([[1, 2], [3, 4]], np.float32)
>>> gr.ops.mse(pred, np.ones_like(pred))
3.5
>>> gr.ops.mse(pred, np.ones_like(pred), reduction="sample").tolist()
[0.5, 6.5]
)";
constexpr const char* kMseVjpDoc =
    R"(mse_vjp(dloss: typing.Any, pred: ArrayLike, target: ArrayLike, *, reduction: str = 'mean', out: NDArray | None = None) -> NDArray

The gradient of mse by pred: ``2 * (pred - target) / pred.size * dloss``.

Args:
    dloss: the gradient by the loss: a number, or with reduction="sample" also one for each sample.
    pred: (samples, ...); float32 or float64.
    target: shape and dtype as pred.
    reduction: as it was given to mse.
    out: where to write the result, as pred; may be pred.

>>> import numpy as np, gradring as gr
>>> gr.ops.mse_vjp(1.0, np.array([[1, 3]], np.float32), np.ones((1, 2), np.float32)).tolist()
[[0.0, 2.0]]
)";
constexpr const char* kBinaryDoc =
    R"(binary_cross_entropy(logits: ArrayLike, targets: ArrayLike, *, reduction: str = 'mean', out: NDArray | None = None) -> typing.Any

The mean of ``-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x))`` for logits x and targets t, in the form that neither
overflows nor loses digits: ``max(x, 0) - x t + log(1 + exp(-|x|))``.

Args:
    logits: (samples, ...); float32 or float64.
    targets: probabilities in [0, 1]; shape and dtype as logits.
    reduction: "mean" or "sum" over everything, as a float; "sample" for one mean per sample, (samples,).
    out: where to write the samples' losses; only for "sample".

>>> import numpy as np, gradring as gr
>>> round(gr.ops.binary_cross_entropy(np.zeros(3, np.float32), np.ones(3, np.float32)), 6)
0.693147
)";
constexpr const char* kBinaryVjpDoc =
    R"(binary_cross_entropy_vjp(dloss: typing.Any, logits: ArrayLike, targets: ArrayLike, *, reduction: str = 'mean', out: NDArray | None = None) -> NDArray

The gradient of binary_cross_entropy by the logits: ``(sigmoid(logits) - targets) / logits.size * dloss``.

Args:
    dloss: the gradient by the loss: a number, or with reduction="sample" also one for each sample.
    logits: (samples, ...); float32 or float64.
    targets: probabilities in [0, 1]; shape and dtype as logits.
    reduction: as it was given to binary_cross_entropy.
    out: where to write the result, as logits; may be logits.

>>> import numpy as np, gradring as gr
>>> gr.ops.binary_cross_entropy_vjp(1.0, np.zeros(2, np.float32), np.array([0, 1], np.float32)).tolist()
[0.25, -0.25]
)";

}  // namespace

void bind_pointwise_loss(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_mse>("mse", kMseDoc),
      fast_method<call_mse_vjp>("mse_vjp", kMseVjpDoc),
      fast_method<call_binary>("binary_cross_entropy", kBinaryDoc),
      fast_method<call_binary_vjp>("binary_cross_entropy_vjp", kBinaryVjpDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
