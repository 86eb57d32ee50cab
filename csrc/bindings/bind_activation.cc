// relu, gelu, silu, tanh and sigmoid on NumPy arrays, and their vjps.
#include "bindings/bindings.h"
#include "bindings/elementwise.h"
#include "ops/activation/activation.h"

namespace gradring {

namespace {

PyObject* forward(const char* op, const Parameters<2>& parameters, Activation kind, PyObject* const* given,
                  Py_ssize_t count, PyObject* keywords) {
  PyObject* values[2];
  parameters.parse(given, count, keywords, values);
  const Array x = Array::dense(op, "x", values[0]);
  require_float(op, x, "x");
  Result y(op, values[1], x, {&x});
  const int64_t n = x.elements();
  for_float(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const ActivationArguments<T> g{kind, n, x.data<T>(), y.data<T>()};
    run_lanes(static_cast<double>(n) * 10, activation_lanes(kind, n, default_lanes()), {},
              [&](const Lane& lane) { activation_forward(lane, g); });
  });
  return y.finish();
}

PyObject* backward(const char* op, const Parameters<3>& parameters, Activation kind, PyObject* const* given,
                   Py_ssize_t count, PyObject* keywords) {
  PyObject* values[3];
  parameters.parse(given, count, keywords, values);
  const char* const source_name = derivative_needs_input(kind) ? "x" : "y";
  const Array dy = Array::dense(op, "dy", values[0]);
  const Array source = Array::dense(op, source_name, values[1]);
  require_same_float(op, dy, "dy", source, source_name);
  require_same_shape(op, dy, "dy", source, source_name);
  Result dx(op, values[2], dy, {&dy, &source});
  const int64_t n = dy.elements();
  for_float(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    const ActivationVjpArguments<T> g{kind, n, dy.data<T>(), source.data<T>(), dx.data<T>()};
    run_lanes(static_cast<double>(n) * 10, activation_lanes(kind, n, default_lanes()), {},
              [&](const Lane& lane) { activation_vjp(lane, g); });
  });
  return dx.finish();
}

#define GRADRING_ACTIVATION(name, kind, source)                                               \
  PyObject* call_##name(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {       \
    static const Parameters<2> parameters(#name, 1, 1, {"x", "out"});                         \
    return forward(#name, parameters, kind, given, count, keywords);                          \
  }                                                                                           \
  PyObject* call_##name##_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) { \
    static const Parameters<3> parameters(#name "_vjp", 2, 2, {"dy", source, "out"});         \
    return backward(#name "_vjp", parameters, kind, given, count, keywords);                  \
  }

GRADRING_ACTIVATION(relu, Activation::kRelu, "y")
GRADRING_ACTIVATION(gelu, Activation::kGelu, "x")
GRADRING_ACTIVATION(silu, Activation::kSilu, "x")
GRADRING_ACTIVATION(tanh, Activation::kTanh, "y")
GRADRING_ACTIVATION(sigmoid, Activation::kSigmoid, "y")

#undef GRADRING_ACTIVATION

constexpr const char* kReluDoc =
    R"(relu(x: ArrayLike, *, out: NDArray | None = None) -> NDArray

``max(x, 0)``, element by element.

NaN stays NaN; the derivative at 0 is 0.

Args:
    x: float32 or float64, any shape and strides.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> gr.ops.relu(np.array([-1.0, 2.0], np.float32)).tolist()
[0.0, 2.0]
)";
constexpr const char* kReluVjpDoc =
    R"(relu_vjp(dy: ArrayLike, y: ArrayLike, *, out: NDArray | None = None) -> NDArray

``dy`` times the derivative of relu: the gradient by its input.

Args:
    dy: the gradient by the output; float32 or float64, any shape and strides.
    y: the output of relu; shape and dtype as dy.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> gr.ops.relu_vjp(np.full(2, 3, np.float32), np.array([-1.0, 2.0], np.float32)).tolist()
[0.0, 3.0]
)";
constexpr const char* kGeluDoc =
    R"(gelu(x: ArrayLike, *, out: NDArray | None = None) -> NDArray

``x * sigmoid(2 u)`` with ``u = sqrt(2/pi) (x + 0.044715 x^3)``, element by element.

The tanh form of Hendrycks and Gimpel (arXiv:1606.08415), the one that GPU libraries fuse into matrix products:
the same as torch.nn.functional.gelu(x, approximate="tanh") and jax.nn.gelu(x). PyTorch's default,
approximate="none", differs from it by at most 4.8e-4.

Args:
    x: float32 or float64, any shape and strides.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> gr.ops.gelu(np.array([0.0, 20.0], np.float32)).tolist()
[0.0, 20.0]
)";
constexpr const char* kGeluVjpDoc =
    R"(gelu_vjp(dy: ArrayLike, x: ArrayLike, *, out: NDArray | None = None) -> NDArray

``dy`` times the derivative of gelu: the gradient by its input.

Args:
    dy: the gradient by the output; float32 or float64, any shape and strides.
    x: the input of gelu; shape and dtype as dy.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> gr.ops.gelu_vjp(np.full(2, 3, np.float32), np.array([0.0, 20.0], np.float32)).tolist()
[1.5, 3.0]
)";
constexpr const char* kSiluDoc =
    R"(silu(x: ArrayLike, *, out: NDArray | None = None) -> NDArray

``x * sigmoid(x)``, element by element.

Elfwing et al., arXiv:1702.03118; also called swish.

Args:
    x: float32 or float64, any shape and strides.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> gr.ops.silu(np.array([0.0, 40.0], np.float32)).tolist()
[0.0, 40.0]
)";
constexpr const char* kSiluVjpDoc =
    R"(silu_vjp(dy: ArrayLike, x: ArrayLike, *, out: NDArray | None = None) -> NDArray

``dy`` times the derivative of silu: the gradient by its input.

Args:
    dy: the gradient by the output; float32 or float64, any shape and strides.
    x: the input of silu; shape and dtype as dy.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> gr.ops.silu_vjp(np.full(2, 3, np.float32), np.array([0.0, 100.0], np.float32)).tolist()
[1.5, 3.0]
)";
constexpr const char* kTanhDoc =
    R"(tanh(x: ArrayLike, *, out: NDArray | None = None) -> NDArray

``tanh(x)``, element by element.

Args:
    x: float32 or float64, any shape and strides.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> gr.ops.tanh(np.array([0.0, 20.0], np.float32)).tolist()
[0.0, 1.0]
)";
constexpr const char* kTanhVjpDoc =
    R"(tanh_vjp(dy: ArrayLike, y: ArrayLike, *, out: NDArray | None = None) -> NDArray

``dy`` times the derivative of tanh: the gradient by its input.

Args:
    dy: the gradient by the output; float32 or float64, any shape and strides.
    y: the output of tanh; shape and dtype as dy.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> gr.ops.tanh_vjp(np.full(2, 3, np.float32), np.array([0.0, 1.0], np.float32)).tolist()
[3.0, 0.0]
)";
constexpr const char* kSigmoidDoc =
    R"(sigmoid(x: ArrayLike, *, out: NDArray | None = None) -> NDArray

``1 / (1 + exp(-x))``, element by element.

Args:
    x: float32 or float64, any shape and strides.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> gr.ops.sigmoid(np.array([0.0, 40.0], np.float32)).tolist()
[0.5, 1.0]
)";
constexpr const char* kSigmoidVjpDoc =
    R"(sigmoid_vjp(dy: ArrayLike, y: ArrayLike, *, out: NDArray | None = None) -> NDArray

``dy`` times the derivative of sigmoid: the gradient by its input.

Args:
    dy: the gradient by the output; float32 or float64, any shape and strides.
    y: the output of sigmoid; shape and dtype as dy.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> gr.ops.sigmoid_vjp(np.full(2, 3, np.float32), np.array([0.5, 1.0], np.float32)).tolist()
[0.75, 0.0]
)";

}  // namespace

void bind_activation(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_relu>("relu", kReluDoc),
      fast_method<call_relu_vjp>("relu_vjp", kReluVjpDoc),
      fast_method<call_gelu>("gelu", kGeluDoc),
      fast_method<call_gelu_vjp>("gelu_vjp", kGeluVjpDoc),
      fast_method<call_silu>("silu", kSiluDoc),
      fast_method<call_silu_vjp>("silu_vjp", kSiluVjpDoc),
      fast_method<call_tanh>("tanh", kTanhDoc),
      fast_method<call_tanh_vjp>("tanh_vjp", kTanhVjpDoc),
      fast_method<call_sigmoid>("sigmoid", kSigmoidDoc),
      fast_method<call_sigmoid_vjp>("sigmoid_vjp", kSigmoidVjpDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
