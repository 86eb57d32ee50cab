// softmax_cross_entropy on NumPy arrays, and its vjp.
#include "bindings/bindings.h"
#include "bindings/loss_arguments.h"
#include "ops/cross_entropy/cross_entropy.h"

namespace gradring {

namespace {

// Logits of (..., classes) and one label for each row of them.
struct Problem {
  Array logits, labels;
  int64_t rows = 0, classes = 0;

  Problem(const char* op, PyObject* logits_object, PyObject* labels_object)
      : logits(Array::dense(op, "logits", logits_object)), labels(Array::dense(op, "labels", labels_object)) {
    require_float(op, logits, "logits");
    if (labels.dtype() == Dtype::kUint8) {
      labels = Array::dense(op, "labels", py::handle(labels.object()).attr("astype")("int64").ptr());
    }
    if (labels.dtype() != Dtype::kInt32 && labels.dtype() != Dtype::kInt64) {
      throw py::type_error("[" + std::string(op) + "] labels is of dtype " + dtype_name(labels.dtype()) +
                           ": must be int32 or int64, the numbers of the classes");
    }
    const int axes = logits.dimensions() - 1;
    bool fits = axes >= 0 && labels.dimensions() == axes;
    for (int axis = 0; fits && axis < axes; ++axis) fits = labels.size(axis) == logits.size(axis);
    if (!fits) {
      throw py::value_error("[" + std::string(op) + "] logits is " + logits.shape_text() + ", labels is " +
                            labels.shape_text() + ": labels must have the shape of logits without its last axis");
    }
    rows = labels.elements();
    classes = logits.size(axes);
  }

  template <class T>
  CrossEntropyArguments<T> arguments() const {
    CrossEntropyArguments<T> g;
    g.rows = rows, g.classes = classes, g.logits = logits.data<T>();
    g.labels = {labels.data(), labels.dtype() == Dtype::kInt64};
    return g;
  }

  template <class T>
  void run(const char* op, CrossEntropyArguments<T> g, LossTotals* totals) const {
    g.totals = totals;
    const int lanes = cross_entropy_lanes(g, default_lanes());
    run_lanes(static_cast<double>(rows * classes) * 20, lanes, cross_entropy_scratch(g, lanes),
              [&](const Lane& lane) { cross_entropy(lane, g); });
    if (totals->bad_row < 0) return;
    const int64_t label = g.labels[totals->bad_row];
    const std::string range =
        classes ? "between 0 and " + std::to_string(classes - 1) : "none, as there are no classes";
    throw py::value_error("[" + std::string(op) + "] label " + std::to_string(totals->bad_row) + " is " +
                          std::to_string(label) + ": must be " + range);
  }
};

PyObject* call_forward(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static constexpr const char* op = "softmax_cross_entropy";
  static const Parameters<4> parameters(op, 2, 2, {"logits", "labels", "reduction", "out"});
  PyObject* values[4];
  parameters.parse(given, count, keywords, values);
  const Problem problem(op, values[0], values[1]);
  const Reduction reduction = reduction_argument(op, values[2], Reduction::kSample);
  LossTotals totals;
  if (reduction != Reduction::kSample) {
    require_no_out(op, values[3]);
    for_float(problem.logits.dtype(),
              [&](auto type) { problem.run(op, problem.arguments<decltype(type)>(), &totals); });
    return reduced(totals.loss, problem.rows, reduction);
  }
  int64_t shape[64];
  for (int axis = 0; axis < problem.labels.dimensions(); ++axis) shape[axis] = problem.labels.size(axis);
  Result losses(op, values[3], problem.logits.dtype(), problem.labels.dimensions(), shape,
                {&problem.logits, &problem.labels});
  for_float(problem.logits.dtype(), [&](auto type) {
    using T = decltype(type);
    auto g = problem.arguments<T>();
    g.losses = losses.data<T>();
    problem.run(op, g, &totals);
  });
  return losses.finish();
}

PyObject* call_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static constexpr const char* op = "softmax_cross_entropy_vjp";
  static const Parameters<5> parameters(op, 3, 3, {"dlosses", "logits", "labels", "reduction", "out"});
  PyObject* values[5];
  parameters.parse(given, count, keywords, values);
  const Problem problem(op, values[1], values[2]);
  const Reduction reduction = reduction_argument(op, values[3], Reduction::kSample);
  const Cotangent dlosses(op, "dlosses", values[0], reduction, problem.logits, problem.labels.dimensions(),
                          problem.rows);
  Result dlogits(op, values[4], problem.logits,
                 dlosses.samples
                     ? std::initializer_list<const Array*>{&problem.logits, &problem.labels, &dlosses.samples}
                     : std::initializer_list<const Array*>{&problem.logits, &problem.labels});
  LossTotals totals;
  for_float(problem.logits.dtype(), [&](auto type) {
    using T = decltype(type);
    auto g = problem.arguments<T>();
    g.dlogits = dlogits.data<T>();
    g.dlosses = dlosses.data<T>();
    g.scale = static_cast<T>(dlosses.number);
    problem.run(op, g, &totals);
  });
  return dlogits.finish();
}

constexpr const char* kForwardDoc =
    R"(softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike, *, reduction: str = 'sample', out: NDArray | None = None) -> typing.Any

``log(sum(exp(logits))) - logits[label]`` for each row: the cross entropy of the softmax with a class number.

Args:
    logits: (..., classes); float32 or float64.
    labels: (...); int32, int64 or uint8, each in [0, classes).
    reduction: "sample" for one loss per row; "mean" or "sum" of them as a float.
    out: where to write the losses, shaped as labels, of logits' dtype; only for "sample".

Raises:
    ValueError: shapes that do not fit, or a label outside its range (named with its place).

>>> import numpy as np, gradring as gr
>>> logits = np.array([[0, 0], [100, 0]], np.float32)
>>> gr.ops.softmax_cross_entropy(logits, np.array([1, 0])).round(4).tolist()
[0.6930999755859375, 0.0]
>>> round(gr.ops.softmax_cross_entropy(logits, np.array([1, 0]), reduction="mean"), 4)
0.3466
)";

constexpr const char* kVjpDoc =
    R"(softmax_cross_entropy_vjp(dlosses: typing.Any, logits: ArrayLike, labels: ArrayLike, *, reduction: str = 'sample', out: NDArray | None = None) -> NDArray

``(softmax(logits) - one_hot(labels)) * dlosses``: the gradient of softmax_cross_entropy by the logits.

Args:
    dlosses: the gradient by the losses: a number for all rows, or one for each, shaped as labels.
    logits: (..., classes); float32 or float64.
    labels: (...); int32, int64 or uint8, each in [0, classes).
    reduction: as it was given to softmax_cross_entropy; "mean" divides by the number of rows.
    out: where to write the result, as logits; may be logits.

>>> import numpy as np, gradring as gr
>>> gr.ops.softmax_cross_entropy_vjp(1.0, np.zeros((1, 2), np.float32), np.array([1])).tolist()
[[0.5, -0.5]]
)";

}  // namespace

void bind_cross_entropy(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_forward>("softmax_cross_entropy", kForwardDoc),
      fast_method<call_vjp>("softmax_cross_entropy_vjp", kVjpDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
