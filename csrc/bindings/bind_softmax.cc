// softmax and log_softmax on NumPy arrays, and their vjps.
#include "bindings/bindings.h"
#include "bindings/elementwise.h"
#include "ops/softmax/softmax.h"

namespace gradring {

namespace {

// axis= as an index of the array; -1 if it was not given.
int axis_argument(const char* op, const Array& array, const char* name, PyObject* value) {
  const int64_t axis = integer_or(op, "axis", value, -1);
  const int dimensions = array.dimensions();
  if (dimensions == 0) {
    throw py::value_error("[" + std::string(op) + "] " + name + " is a scalar: must have at least one dimension");
  }
  if (axis < -dimensions || axis >= dimensions) {
    throw py::value_error("[" + std::string(op) + "] axis is " + std::to_string(axis) + ", " + name + " is " +
                          array.shape_text() + ": must be between " + std::to_string(-dimensions) + " and " +
                          std::to_string(dimensions - 1));
  }
  return static_cast<int>(axis < 0 ? axis + dimensions : axis);
}

// Another axis than the last: on a view with that axis last.
PyObject* with_axis_last(const char* op, int arrays, PyObject* const* given, int axis, PyObject* out) {
  const py::object help = py::module_::import("gradring.ops._axis").attr("with_axis_last");
  py::tuple operands(static_cast<size_t>(arrays));
  for (int i = 0; i < arrays; ++i) operands[static_cast<size_t>(i)] = py::handle(given[i]);
  return help(op, operands, axis, out ? py::handle(out) : py::handle(Py_None)).release().ptr();
}

PyObject* forward(const char* op, const Parameters<3>& parameters, bool logarithm, PyObject* const* given,
                  Py_ssize_t count, PyObject* keywords) {
  PyObject* values[3];
  parameters.parse(given, count, keywords, values);
  const Array x = Array::dense(op, "x", values[0]);
  require_float(op, x, "x");
  const int axis = axis_argument(op, x, "x", values[1]);
  if (axis != x.dimensions() - 1) return with_axis_last(op, 1, values, axis, values[2]);
  Result y(op, values[2], x, {&x});
  const int64_t columns = x.size(axis), rows = columns ? x.elements() / columns : 0;
  for_float(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const SoftmaxArguments<T> g{rows, columns, x.data<T>(), y.data<T>(), logarithm};
    run_lanes(static_cast<double>(rows * columns) * 20, softmax_lanes(rows, columns, default_lanes()), {},
              [&](const Lane& lane) { softmax(lane, g); });
  });
  return y.finish();
}

PyObject* backward(const char* op, const Parameters<4>& parameters, bool logarithm, PyObject* const* given,
                   Py_ssize_t count, PyObject* keywords) {
  PyObject* values[4];
  parameters.parse(given, count, keywords, values);
  const Array dy = Array::dense(op, "dy", values[0]);
  const Array y = Array::dense(op, "y", values[1]);
  require_same_float(op, dy, "dy", y, "y");
  require_same_shape(op, dy, "dy", y, "y");
  const int axis = axis_argument(op, y, "y", values[2]);
  if (axis != y.dimensions() - 1) return with_axis_last(op, 2, values, axis, values[3]);
  Result dx(op, values[3], dy, {&dy, &y});
  const int64_t columns = y.size(axis), rows = columns ? y.elements() / columns : 0;
  for_float(y.dtype(), [&](auto type) {
    using T = decltype(type);
    const SoftmaxVjpArguments<T> g{rows, columns, dy.data<T>(), y.data<T>(), dx.data<T>(), logarithm};
    run_lanes(static_cast<double>(rows * columns) * 10, softmax_lanes(rows, columns, default_lanes()), {},
              [&](const Lane& lane) { softmax_vjp(lane, g); });
  });
  return dx.finish();
}

PyObject* call_softmax(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<3> parameters("softmax", 1, 1, {"x", "axis", "out"});
  return forward("softmax", parameters, false, given, count, keywords);
}
PyObject* call_softmax_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<4> parameters("softmax_vjp", 2, 2, {"dy", "y", "axis", "out"});
  return backward("softmax_vjp", parameters, false, given, count, keywords);
}

PyObject* call_log_softmax(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<3> parameters("log_softmax", 1, 1, {"x", "axis", "out"});
  return forward("log_softmax", parameters, true, given, count, keywords);
}
PyObject* call_log_softmax_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<4> parameters("log_softmax_vjp", 2, 2, {"dy", "y", "axis", "out"});
  return backward("log_softmax_vjp", parameters, true, given, count, keywords);
}

constexpr const char* kSoftmaxDoc =
    R"(softmax(x: ArrayLike, *, axis: int = -1, out: NDArray | None = None) -> NDArray

``exp(x) / sum(exp(x))`` along an axis, computed on ``x - max(x)``, so that it never overflows.

Args:
    x: float32 or float64, one dimension or more.
    axis: the axis of the sum; the last is the fastest.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> gr.ops.softmax(np.zeros((1, 4), np.float32)).tolist()
[[0.25, 0.25, 0.25, 0.25]]
)";
constexpr const char* kSoftmaxVjpDoc =
    R"(softmax_vjp(dy: ArrayLike, y: ArrayLike, *, axis: int = -1, out: NDArray | None = None) -> NDArray

``y * (dy - sum(dy * y))``: the gradient of softmax by its input.

Args:
    dy: the gradient by the output.
    y: the output of softmax; shape and dtype as dy.
    axis: as it was given to softmax.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> gr.ops.softmax_vjp(np.array([[1, 0, 0, 0]], np.float32), np.full((1, 4), 0.25, np.float32)).tolist()
[[0.1875, -0.0625, -0.0625, -0.0625]]
)";
constexpr const char* kLogSoftmaxDoc =
    R"(log_softmax(x: ArrayLike, *, axis: int = -1, out: NDArray | None = None) -> NDArray

``x - log(sum(exp(x)))`` along an axis, computed on ``x - max(x)``, so that it never overflows.

Args:
    x: float32 or float64, one dimension or more.
    axis: the axis of the sum; the last is the fastest.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> gr.ops.log_softmax(np.zeros((2, 1), np.float32)).tolist()
[[0.0], [0.0]]
)";
constexpr const char* kLogSoftmaxVjpDoc =
    R"(log_softmax_vjp(dy: ArrayLike, y: ArrayLike, *, axis: int = -1, out: NDArray | None = None) -> NDArray

``dy - exp(y) * sum(dy)``: the gradient of log_softmax by its input.

Args:
    dy: the gradient by the output.
    y: the output of log_softmax; shape and dtype as dy.
    axis: as it was given to log_softmax.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> gr.ops.log_softmax_vjp(np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)).tolist()
[[0.0], [0.0]]
)";

}  // namespace

void bind_softmax(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_softmax>("softmax", kSoftmaxDoc),
      fast_method<call_softmax_vjp>("softmax_vjp", kSoftmaxVjpDoc),
      fast_method<call_log_softmax>("log_softmax", kLogSoftmaxDoc),
      fast_method<call_log_softmax_vjp>("log_softmax_vjp", kLogSoftmaxVjpDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
