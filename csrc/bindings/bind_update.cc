// sgd_update, adam_update and adamw_update on NumPy arrays, in place.
#include "bindings/bindings.h"
#include "bindings/elementwise.h"
#include "ops/adam/adam.h"
#include "ops/sgd/sgd.h"

namespace gradring {

namespace {

// An array that is updated in place: itself if it is contiguous, else a copy that is written back.
class Updated {
 public:
  Updated(const char* op, const char* name, PyObject* object, const Array* like, const char* like_name) {
    if (like == nullptr) {
      const Array given = Array::input(op, name, object);
      require_float(op, given, name);
      shape_as(op, name, object, given);
    } else {
      require_same_float(op, *like, like_name, Array::input(op, name, object), name);
      shape_as(op, name, object, *like);
    }
    work_ = array_.contiguous() ? Array::output(op, name, object, array_.dtype(), array_.dimensions(), shape_)
                                : array_.copy();
  }
  const Array& array() const noexcept { return array_; }
  template <class T>
  T* data() const noexcept {
    return work_.data<T>();
  }
  void finish() const {
    if (work_.data() != array_.data()) array_.assign(work_);
  }

 private:
  void shape_as(const char* op, const char* name, PyObject* object, const Array& like) {
    for (int axis = 0; axis < like.dimensions(); ++axis) shape_[axis] = like.size(axis);
    array_ = Array::output(op, name, object, like.dtype(), like.dimensions(), shape_);
  }

  int64_t shape_[64];
  Array array_, work_;
};

Array gradient_of(const char* op, PyObject* object, const Array& param) {
  Array grad = Array::dense(op, "grad", object);
  require_same_float(op, param, "param", grad, "grad");
  require_same_shape(op, param, "param", grad, "grad");
  return grad;
}

double positive(const char* op, const char* name, PyObject* value, double otherwise) {
  const double number = number_or(op, name, value, otherwise);
  if (number >= 0) return number;
  throw py::value_error("[" + std::string(op) + "] " + name + " is " + std::to_string(number) + ": must be at least 0");
}

PyObject* call_sgd(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static constexpr const char* op = "sgd_update";
  static const Parameters<8> parameters(
      op, 3, 2, {"param", "grad", "velocity", "lr", "momentum", "nesterov", "weight_decay", "grad_scale"});
  PyObject* values[8];
  parameters.parse(given, count, keywords, values);
  if (!values[3]) throw py::type_error("[sgd_update] lr is missing");
  const Updated param(op, "param", values[0], nullptr, nullptr);
  const Array grad = gradient_of(op, values[1], param.array());
  grad.require_apart(op, "grad", param.array(), "param");
  const double momentum = positive(op, "momentum", values[4], 0);
  const bool nesterov = flag_or(values[5], false);
  if (nesterov && momentum == 0) throw py::value_error("[sgd_update] nesterov needs momentum above 0");
  PyObject* const velocity_object = values[2] ? given_or_null(values[2]) : nullptr;
  if (momentum != 0 && !velocity_object) {
    throw py::value_error("[sgd_update] velocity is missing: momentum needs an array of zeros to begin with");
  }
  const auto update = [&](const Updated* velocity) {
    for_float(grad.dtype(), [&](auto type) {
      using T = decltype(type);
      SgdArguments<T> g;
      g.n = grad.elements(), g.param = param.data<T>(), g.grad = grad.data<T>();
      g.velocity = velocity ? velocity->data<T>() : nullptr;
      g.lr = positive(op, "lr", values[3], 0), g.momentum = momentum, g.nesterov = nesterov;
      g.weight_decay = positive(op, "weight_decay", values[6], 0);
      g.grad_scale = number_or(op, "grad_scale", values[7], 1);
      run_lanes(static_cast<double>(g.n) * 10, sgd_lanes(g.n, default_lanes()), {},
                [&](const Lane& lane) { sgd_update(lane, g); });
    });
    param.finish();
    if (velocity) velocity->finish();
  };
  if (momentum == 0) {
    update(nullptr);
  } else {
    const Updated velocity(op, "velocity", velocity_object, &param.array(), "param");
    require_results_apart(op, {{&param.array(), "param"}, {&velocity.array(), "velocity"}}, {{&grad, "grad"}});
    update(&velocity);
  }
  Py_RETURN_NONE;
}

// betas=(beta1, beta2), each in [0, 1).
void betas_argument(const char* op, PyObject* value, double* beta1, double* beta2) {
  if (!value) return;
  PyObject* const pair = PySequence_Fast(value, "");
  if (!pair || PySequence_Fast_GET_SIZE(pair) != 2) {
    PyErr_Clear();
    Py_XDECREF(pair);
    throw py::type_error("[" + std::string(op) + "] betas must be two numbers");
  }
  const py::object owner = py::reinterpret_steal<py::object>(pair);
  *beta1 = number_or(op, "betas[0]", PySequence_Fast_GET_ITEM(pair, 0), 0);
  *beta2 = number_or(op, "betas[1]", PySequence_Fast_GET_ITEM(pair, 1), 0);
  for (const double beta : {*beta1, *beta2}) {
    if (beta >= 0 && beta < 1) continue;
    throw py::value_error("[" + std::string(op) + "] betas contain " + std::to_string(beta) +
                          ": must be at least 0 and less than 1");
  }
}

PyObject* adam(const char* op, const Parameters<10>& parameters, bool decoupled, double default_decay,
               PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  enum { kParam, kGrad, kM, kV, kStep, kLr, kBetas, kEps, kDecay, kScale };
  PyObject* values[10];
  parameters.parse(given, count, keywords, values);
  if (!values[kStep]) throw py::type_error("[" + std::string(op) + "] step is missing: the first update is step 1");
  const Updated param(op, "param", values[kParam], nullptr, nullptr);
  const Array grad = gradient_of(op, values[kGrad], param.array());
  const Updated m(op, "m", values[kM], &param.array(), "param");
  const Updated v(op, "v", values[kV], &param.array(), "param");
  require_results_apart(op, {{&param.array(), "param"}, {&m.array(), "m"}, {&v.array(), "v"}}, {{&grad, "grad"}});
  const int64_t step = integer_or(op, "step", values[kStep], 1);
  if (step < 1) {
    throw py::value_error("[" + std::string(op) + "] step is " + std::to_string(step) + ": must be at least 1");
  }
  for_float(grad.dtype(), [&](auto type) {
    using T = decltype(type);
    AdamArguments<T> g;
    g.n = grad.elements(), g.param = param.data<T>(), g.grad = grad.data<T>(), g.m = m.data<T>(), g.v = v.data<T>();
    g.step = step, g.decoupled = decoupled;
    g.lr = positive(op, "lr", values[kLr], 1e-3);
    betas_argument(op, values[kBetas], &g.beta1, &g.beta2);
    g.eps = positive(op, "eps", values[kEps], 1e-8);
    g.weight_decay = positive(op, "weight_decay", values[kDecay], default_decay);
    g.grad_scale = number_or(op, "grad_scale", values[kScale], 1);
    run_lanes(static_cast<double>(g.n) * 20, adam_lanes(g.n, default_lanes()), {},
              [&](const Lane& lane) { adam_update(lane, g); });
  });
  param.finish();
  m.finish();
  v.finish();
  Py_RETURN_NONE;
}

PyObject* call_adam(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<10> parameters(
      "adam_update", 4, 4, {"param", "grad", "m", "v", "step", "lr", "betas", "eps", "weight_decay", "grad_scale"});
  return adam("adam_update", parameters, false, 0, given, count, keywords);
}
PyObject* call_adamw(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<10> parameters(
      "adamw_update", 4, 4, {"param", "grad", "m", "v", "step", "lr", "betas", "eps", "weight_decay", "grad_scale"});
  return adam("adamw_update", parameters, true, 1e-2, given, count, keywords);
}

constexpr const char* kSgdDoc =
    R"(sgd_update(param: NDArray, grad: ArrayLike, velocity: NDArray | None = None, *, lr: float, momentum: float = 0, nesterov: bool = False, weight_decay: float = 0, grad_scale: float = 1) -> None

One step of stochastic gradient descent, in place, in one pass over memory; torch.optim.SGD's formula::

    g = grad * grad_scale + weight_decay * param
    velocity = momentum * velocity + g           # with momentum
    param -= lr * (g + momentum * velocity if nesterov else velocity)

Args:
    param: any shape; float32 or float64; changed.
    grad: as param.
    velocity: as param, zeros before the first step; changed. Needed with momentum.
    grad_scale: a factor of the gradient, such as the one that clips it.

>>> import numpy as np, gradring as gr
>>> param = np.ones(2, np.float32)
>>> gr.ops.sgd_update(param, np.array([1, 2], np.float32), lr=0.5)
>>> param.tolist()
[0.5, 0.0]
)";
constexpr const char* kAdamDoc =
    R"(adam_update(param: NDArray, grad: ArrayLike, m: NDArray, v: NDArray, *, step: int, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0, grad_scale: float = 1) -> None

One step of Adam (Kingma and Ba, 2015), in place, in one pass over memory; torch.optim.Adam's formula, in which
weight_decay is added to the gradient.

Args:
    param: any shape; float32 or float64; changed.
    grad: as param.
    m, v: the running means of the gradient and of its square, as param, zeros before the first step; changed.
    step: 1 for the first update.
    grad_scale: a factor of the gradient, such as the one that clips it.

>>> import numpy as np, gradring as gr
>>> param, m, v = np.ones(2), np.zeros(2), np.zeros(2)
>>> gr.ops.adam_update(param, np.array([0.5, -3.0]), m, v, step=1, lr=0.1)
>>> param.round(6).tolist()
[0.9, 1.1]
)";
constexpr const char* kAdamwDoc =
    R"(adamw_update(param: NDArray, grad: ArrayLike, m: NDArray, v: NDArray, *, step: int, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2, grad_scale: float = 1) -> None

One step of AdamW (Loshchilov and Hutter, 2019), in place, in one pass over memory; torch.optim.AdamW's formula, in
which weight_decay shrinks the parameters: ``param *= 1 - lr * weight_decay``.

Args:
    param: any shape; float32 or float64; changed.
    grad: as param.
    m, v: the running means of the gradient and of its square, as param, zeros before the first step; changed.
    step: 1 for the first update.
    grad_scale: a factor of the gradient, such as the one that clips it.

>>> import numpy as np, gradring as gr
>>> param, m, v = np.ones(2), np.zeros(2), np.zeros(2)
>>> gr.ops.adamw_update(param, np.array([0.5, -3.0]), m, v, step=1, lr=0.1, weight_decay=1.0)
>>> param.round(6).tolist()
[0.8, 1.0]
)";

}  // namespace

void bind_update(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_sgd>("sgd_update", kSgdDoc),
      fast_method<call_adam>("adam_update", kAdamDoc),
      fast_method<call_adamw>("adamw_update", kAdamwDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
