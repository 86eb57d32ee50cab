// linear and linear_vjp on NumPy arrays.
#include <optional>
#include <string>

#include "bindings/activation_name.h"
#include "bindings/bindings.h"
#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "bindings/matrix.h"
#include "ops/linear/linear.h"
#include "runtime/default_team.h"

namespace gradring {

namespace {

[[noreturn]] void wrong_shape(const char* op, const Array& array, const char* name, const Array& other,
                              const char* other_name, const std::string& must) {
  throw py::value_error("[" + std::string(op) + "] " + other_name + " is " + other.shape_text() + ", " + name + " is " +
                        array.shape_text() + ": " + must);
}

void require_two_dimensions(const char* op, const Array& array, const char* name) {
  if (array.dimensions() == 2) return;
  throw py::value_error("[" + std::string(op) + "] " + name + " is " + array.shape_text() + ": must have 2 dimensions");
}

// A vector of n elements, contiguous.
Array vector_input(const char* op, const char* name, PyObject* object, int64_t n, const Array& like,
                   const char* like_name) {
  Array array = Array::dense(op, name, object);
  require_same_float(op, like, like_name, array, name);
  if (array.dimensions() != 1 || array.size(0) != n) {
    wrong_shape(op, array, name, like, like_name, std::string(name) + " must be (" + std::to_string(n) + ",)");
  }
  return array;
}

// A result that kernels write row by row: the array itself, or a dense stand-in that finish() copies from.
class Result {
 public:
  Result(const char* op, const char* name, PyObject* given, Dtype dtype, int dimensions, const int64_t* shape)
      : given_(given_or_null(given) != nullptr),
        name_(name),
        array_(Array::output(op, name, given, dtype, dimensions, shape)) {
    const bool direct = !given_ || (dimensions == 2 ? writes_in_place(array_) : array_.contiguous());
    if (!direct) dense_ = Array::empty(dtype, dimensions, shape);
  }
  // Of a matrix: have it written with its rows together.
  void use_dense(const int64_t (&shape)[2]) {
    if (!dense_ && leading() != shape[1]) dense_ = Array::empty(array_.dtype(), 2, shape);
  }
  // For require_results_apart, which need not look at an array that was made here.
  NamedArray named() const noexcept { return {given_ ? &array_ : nullptr, name_}; }
  template <class T>
  T* data() const noexcept {
    return target().template data<T>();
  }
  int64_t leading() const noexcept { return leading_dimension(target()); }
  PyObject* finish() {
    if (dense_) array_.assign(dense_);
    return array_.release();
  }

 private:
  const Array& target() const noexcept { return dense_ ? dense_ : array_; }
  bool given_;
  const char* name_;
  Array array_;
  Array dense_;
};

struct Forward {
  Matrix x, w;
  Array bias;
  Activation activation;
  Result* y;
  Result* pre;
};

template <class T>
void run_forward(const Forward& f) {
  MatmulArguments<T> g;
  g.m = f.x.rows, g.n = f.w.columns, g.k = f.x.columns;
  g.a = f.x.data<T>(), g.lda = f.x.leading, g.trans_a = f.x.transposed;
  g.b = f.w.data<T>(), g.ldb = f.w.leading, g.trans_b = f.w.transposed;
  g.c = f.y->data<T>(), g.ldc = f.y->leading();
  g.epilogue.bias = f.bias ? f.bias.data<const T>() : nullptr;
  g.epilogue.activation = f.activation;
  if (f.pre) g.epilogue.pre = f.pre->data<T>();
  const MaybeReleaseGil released(operations_of(g.m, g.n, g.k + 16));
  const int lanes = matmul_lanes(g, default_lanes());
  const ScratchBytes bytes = matmul_scratch(g, lanes);
  TeamLease team(lanes, bytes.per_lane, bytes.shared);
  team.run_each(nanoseconds_of(g.m, g.n, g.k + 16), [&](const Lane& lane) { matmul(lane, g); });
}

PyObject* call_linear(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<6> parameters("linear", 3, 2, {"x", "w", "b", "activation", "out", "pre"});
  PyObject* values[6];
  parameters.parse(given, count, keywords, values);
  Array x = Array::input("linear", "x", values[0]);
  Array w = Array::input("linear", "w", values[1]);
  require_same_float("linear", x, "x", w, "w");
  require_two_dimensions("linear", w, "w");
  if (x.dimensions() != 2) {
    const auto or_none = [&](int i) { return values[i] ? py::handle(values[i]) : py::handle(Py_None); };
    return py::module_::import("gradring.ops._batched")
        .attr("linear")(py::handle(x.object()), py::handle(w.object()), or_none(2), or_none(3), or_none(4), or_none(5))
        .release()
        .ptr();
  }
  if (x.size(1) != w.size(0)) {
    wrong_shape("linear", x, "x", w, "w", "x.shape[1] must be " + std::to_string(w.size(0)));
  }
  const int64_t shape[2] = {x.size(0), w.size(1)};
  Forward f;
  f.activation = activation_argument("linear", values[3]);
  if (given_or_null(values[2])) f.bias = vector_input("linear", "b", values[2], shape[1], w, "w");
  const Dtype dtype = x.dtype();
  Result y("linear", "out", values[4], dtype, 2, shape);
  std::optional<Result> pre;
  if (given_or_null(values[5])) pre.emplace("linear", "pre", values[5], dtype, 2, shape);
  require_results_apart("linear", {pre ? pre->named() : NamedArray{nullptr, "pre"}, y.named()},
                        {{&x, "x"}, {&w, "w"}, {&f.bias, "b"}});
  f.x = as_matrix(std::move(x));
  f.w = as_matrix(std::move(w));
  f.y = &y;
  f.pre = nullptr;
  if (pre) {
    // The kernel writes both with one leading dimension.
    if (pre->leading() != y.leading()) {
      pre->use_dense(shape);
      y.use_dense(shape);
    }
    f.pre = &*pre;
  }
  dtype == Dtype::kFloat32 ? run_forward<float>(f) : run_forward<double>(f);
  if (pre) Py_DECREF(pre->finish());
  return y.finish();
}

template <class T>
void run_vjp(const Matrix& x, const Matrix& w, const Array& dy, const Array& saved, Activation activation, Result* dx,
             Result& dw, Result& db) {
  LinearVjpArguments<T> p;
  p.rows = x.rows, p.in = x.columns, p.out = w.columns;
  p.dy = dy.data<const T>(), p.dy_ld = p.out;
  p.x = x.data<T>(), p.x_ld = x.leading, p.trans_x = x.transposed;
  p.w = w.data<T>(), p.w_ld = w.leading, p.trans_w = w.transposed;
  p.activation = activation;
  if (saved) p.saved = saved.data<const T>(), p.saved_ld = p.out;
  if (dx) p.dx = dx->data<T>(), p.dx_ld = dx->leading();
  p.dw = dw.data<T>(), p.dw_ld = dw.leading();
  p.db = db.data<T>();
  const MaybeReleaseGil released(2 * operations_of(p.rows, p.in, p.out));
  const int lanes = linear_vjp_lanes(p, default_lanes());
  const ScratchBytes bytes = linear_vjp_scratch(p, lanes);
  TeamLease team(lanes, bytes.per_lane, bytes.shared);
  const double nanoseconds = nanoseconds_of(p.rows, p.in, p.out);
  team.run_each(nanoseconds, [&](const Lane& lane) { linear_vjp_gradient(lane, p); });
  team.run_each(2 * nanoseconds, [&](const Lane& lane) { linear_vjp_products(lane, p); });
}

PyObject* call_linear_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  constexpr const char* kOp = "linear_vjp";
  static const Parameters<7> parameters(kOp, 4, 3, {"dy", "x", "w", "y_or_pre", "activation", "need_dx", "out"});
  PyObject* values[7];
  parameters.parse(given, count, keywords, values);
  Array dy = Array::dense(kOp, "dy", values[0]);
  Array x = Array::input(kOp, "x", values[1]);
  Array w = Array::input(kOp, "w", values[2]);
  require_same_float(kOp, dy, "dy", x, "x");
  require_same_float(kOp, x, "x", w, "w");
  require_two_dimensions(kOp, w, "w");
  if (x.dimensions() != 2 || dy.dimensions() != 2) {
    const auto or_none = [&](int i) { return values[i] ? py::handle(values[i]) : py::handle(Py_None); };
    return py::module_::import("gradring.ops._batched")
        .attr("linear_vjp")(py::handle(dy.object()), py::handle(x.object()), py::handle(w.object()), or_none(3),
                            or_none(4), flag_or(values[5], true), or_none(6))
        .release()
        .ptr();
  }
  if (x.size(1) != w.size(0)) wrong_shape(kOp, x, "x", w, "w", "x.shape[1] must be " + std::to_string(w.size(0)));
  if (dy.size(0) != x.size(0) || dy.size(1) != w.size(1)) {
    wrong_shape(kOp, dy, "dy", x, "x",
                "dy must be (" + std::to_string(x.size(0)) + ", " + std::to_string(w.size(1)) + ")");
  }
  const Activation activation = activation_argument(kOp, values[4]);
  Array saved;
  if (activation != Activation::kNone) {
    if (!given_or_null(values[3])) {
      throw py::value_error(
          "[linear_vjp] y_or_pre is missing: an activation's derivative needs the layer's output, or "
          "for gelu and silu what went into the activation (linear's pre=)");
    }
    saved = Array::dense(kOp, "y_or_pre", values[3]);
    require_same_float(kOp, dy, "dy", saved, "y_or_pre");
    if (!saved.same_shape(dy)) wrong_shape(kOp, saved, "y_or_pre", dy, "dy", "y_or_pre must have dy's shape");
  }
  const bool need_dx = flag_or(values[5], true);
  PyObject* outs[3] = {nullptr, nullptr, nullptr};
  if (given_or_null(values[6])) {
    if (!PyTuple_Check(values[6]) || PyTuple_GET_SIZE(values[6]) != 3) {
      throw py::type_error("[linear_vjp] out must be a tuple (dx, dw, db) of arrays or None");
    }
    for (int i = 0; i < 3; ++i) outs[i] = PyTuple_GET_ITEM(values[6], i);
  }
  const Dtype dtype = dy.dtype();
  const int64_t dx_shape[2] = {x.size(0), x.size(1)}, dw_shape[2] = {w.size(0), w.size(1)}, db_shape[1] = {w.size(1)};
  std::optional<Result> maybe_dx;
  if (need_dx) maybe_dx.emplace(kOp, "dx", outs[0], dtype, 2, dx_shape);
  Result* const dx = maybe_dx ? &*maybe_dx : nullptr;
  Result dw(kOp, "dw", outs[1], dtype, 2, dw_shape), db(kOp, "db", outs[2], dtype, 1, db_shape);
  require_results_apart(kOp, {dx ? dx->named() : NamedArray{nullptr, "dx"}, dw.named(), db.named()},
                        {{&dy, "dy"}, {&x, "x"}, {&w, "w"}, {&saved, "y_or_pre"}});
  const Matrix x_matrix = as_matrix(std::move(x)), w_matrix = as_matrix(std::move(w));
  if (dtype == Dtype::kFloat32) {
    run_vjp<float>(x_matrix, w_matrix, dy, saved, activation, dx, dw, db);
  } else {
    run_vjp<double>(x_matrix, w_matrix, dy, saved, activation, dx, dw, db);
  }
  PyObject* const results = PyTuple_New(3);
  if (!results) throw py::error_already_set();
  PyTuple_SET_ITEM(results, 0, dx ? dx->finish() : Py_NewRef(Py_None));
  PyTuple_SET_ITEM(results, 1, dw.finish());
  PyTuple_SET_ITEM(results, 2, db.finish());
  return results;
}

constexpr const char* kLinearDoc =
    R"(linear(x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, *, activation: str | None = None, out: NDArray | None = None, pre: NDArray | None = None) -> NDArray

A dense layer in one pass: ``activation(x @ w + b)``, bias and activation applied while the product is in cache.

Args:
    x: (N, in), float32 or float64, any strides; more leading dimensions are kept.
    w: (in, out), the same dtype.
    b: (out,), or None.
    activation: None, "relu", "gelu" (the tanh form), "silu", "tanh" or "sigmoid".
    out: where to write the result, (N, out); must not share memory with the inputs.
    pre: if given, receives ``x @ w + b``, (N, out), which the gradient of gelu and silu needs.

Returns:
    (N, out): ``out`` if given, else a new array. The same bits for any number of threads.

Raises:
    ValueError: shapes that do not fit, an unknown activation, an ``out`` that overlaps an input or is read-only.
    TypeError: dtypes that differ or are neither float32 nor float64.

>>> import numpy as np, gradring as gr
>>> gr.ops.linear(np.ones((1, 2)), np.eye(2), np.array([-3.0, 1.0]), activation="relu").tolist()
[[0.0, 2.0]]
)";

constexpr const char* kLinearVjpDoc =
    R"(linear_vjp(dy: ArrayLike, x: ArrayLike, w: ArrayLike, y_or_pre: ArrayLike | None = None, *, activation: str | None = None, need_dx: bool = True, out: tuple[NDArray | None, NDArray | None, NDArray | None] | None = None) -> tuple[NDArray | None, NDArray, NDArray]

The gradients of :func:`linear`: with ``g = dy * activation'``, ``dx = g @ w.T``, ``dw = x.T @ g``, ``db = g.sum(0)``.

Args:
    dy: the gradient of the layer's output, (N, out), float32 or float64; more or fewer leading dimensions as in x.
    x: the layer's input, (N, in), or with the leading dimensions that :func:`linear` took.
    w: the layer's weight, (in, out).
    y_or_pre: with an activation, the layer's output (relu, tanh, sigmoid) or what went into the activation
        (gelu, silu; see ``linear(pre=...)``), (N, out).
    activation: as given to :func:`linear`.
    need_dx: False skips dx, as for a first layer; None is returned in its place.
    out: (dx, dw, db), arrays to write to; None in a place makes a new array.

Returns:
    dx (N, in), dw (in, out), db (out,). The same bits for any number of threads.

Raises:
    ValueError: shapes that do not fit, an unknown activation, a result that overlaps an input or is read-only.
    TypeError: dtypes that differ or are neither float32 nor float64.

>>> import numpy as np, gradring as gr
>>> dx, dw, db = gr.ops.linear_vjp(np.ones((2, 1)), np.array([[1.0], [2.0]]), np.array([[3.0]]))
>>> dx.tolist(), dw.tolist(), db.tolist()
([[3.0], [3.0]], [[3.0]], [2.0])
)";

}  // namespace

void bind_linear(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_linear>("linear", kLinearDoc),
      fast_method<call_linear_vjp>("linear_vjp", kLinearVjpDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
