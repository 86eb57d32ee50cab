// matmul, linear and linear_vjp on NumPy arrays.
#include "bindings/bindings.h"
#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "bindings/matrix.h"
#include "ops/matmul/matmul.h"
#include "runtime/default_team.h"

namespace gradring {

namespace {

[[noreturn]] void inner_dimensions_differ(const Array& a, const Array& b) {
  throw py::value_error("[matmul] a is " + a.shape_text() + ", b is " + b.shape_text() + ": inner dimensions differ");
}

template <class T>
void run_matmul(const MatmulArguments<T>& g) {
  const MaybeReleaseGil released(operations_of(g.m, g.n, g.k));
  const int lanes = matmul_lanes(g, default_lanes());
  const ScratchBytes bytes = matmul_scratch(g, lanes);
  TeamLease team(lanes, bytes.per_lane, bytes.shared);
  team.run_each(nanoseconds_of(g.m, g.n, g.k), [&](const Lane& lane) { matmul(lane, g); });
}

template <class T>
void multiply_into(const Matrix& a, const Matrix& b, const Array& out) {
  MatmulArguments<T> g;
  g.m = a.rows, g.n = b.columns, g.k = a.columns;
  g.a = a.data<T>(), g.lda = a.leading, g.trans_a = a.transposed;
  g.b = b.data<T>(), g.ldb = b.leading, g.trans_b = b.transposed;
  g.c = out.data<T>(), g.ldc = leading_dimension(out);
  run_matmul(g);
}

void multiply(const Matrix& a, const Matrix& b, const Array& out) {
  if (a.array.dtype() == Dtype::kFloat32) {
    multiply_into<float>(a, b, out);
  } else {
    multiply_into<double>(a, b, out);
  }
}

PyObject* call_matmul(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<5> parameters("matmul", 2, 2, {"a", "b", "trans_a", "trans_b", "out"});
  PyObject* values[5];
  parameters.parse(given, count, keywords, values);
  Array a_array = Array::input("matmul", "a", values[0]);
  Array b_array = Array::input("matmul", "b", values[1]);
  require_same_float("matmul", a_array, "a", b_array, "b");
  if (a_array.dimensions() != 2 || b_array.dimensions() != 2) {
    return py::module_::import("gradring.ops._batched")
        .attr("matmul")(py::handle(a_array.object()), py::handle(b_array.object()), flag_or(values[2], false),
                        flag_or(values[3], false), values[4] ? py::handle(values[4]) : py::handle(Py_None))
        .release()
        .ptr();
  }
  Matrix a = as_matrix(std::move(a_array));
  Matrix b = as_matrix(std::move(b_array));
  if (flag_or(values[2], false)) a = transpose(std::move(a));
  if (flag_or(values[3], false)) b = transpose(std::move(b));
  if (a.columns != b.rows) inner_dimensions_differ(a.array, b.array);
  const int64_t shape[2] = {a.rows, b.columns};
  Array out = Array::output("matmul", "out", values[4], a.array.dtype(), 2, shape);
  if (given_or_null(values[4])) {
    require_results_apart("matmul", {{&out, "out"}}, {{&a.array, "a"}, {&b.array, "b"}});
    if (!writes_in_place(out)) {
      const Array dense = Array::empty(out.dtype(), 2, shape);
      multiply(a, b, dense);
      out.assign(dense);
      return out.release();
    }
  }
  multiply(a, b, out);
  return out.release();
}

constexpr const char* kMatmulDoc =
    R"(matmul(a: ArrayLike, b: ArrayLike, *, trans_a: bool = False, trans_b: bool = False, out: NDArray | None = None) -> NDArray

The matrix product ``op(a) @ op(b)``, where ``op`` transposes if the flag says so.

Args:
    a: (m, k), or (k, m) with ``trans_a``; float32 or float64, any strides (a transposed view is read in place).
        One dimension or more than two are treated as numpy.matmul treats them.
    b: (k, n), or (n, k) with ``trans_b``; the same dtype.
    out: where to write the result, (m, n); must not share memory with ``a`` or ``b``.

Returns:
    (m, n): ``out`` if given, else a new array. The same bits for any number of threads.

Raises:
    ValueError: shapes that do not fit, an ``out`` that overlaps an input or is read-only.
    TypeError: dtypes that differ or are neither float32 nor float64.

>>> import numpy as np, gradring as gr
>>> gr.ops.matmul(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), trans_b=True).tolist()
[[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]]
)";

}  // namespace

void bind_matmul(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_matmul>("matmul", kMatmulDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
