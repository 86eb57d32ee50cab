// dropout on NumPy arrays, its vjp, and the process-wide seed.
#include "bindings/bindings.h"
#include "bindings/elementwise.h"
#include "ops/dropout/dropout.h"
#include "runtime/seed.h"

namespace gradring {

namespace {

enum Value { kX, kP, kSeed, kSamples, kLayer, kEpoch, kOut, kValues };

// Any Python integer, of which the low 64 bits count.
uint64_t seed_argument(const char* op, PyObject* value) {
  const uint64_t seed = PyLong_AsUnsignedLongLongMask(value);
  if (seed != ~uint64_t{0} || !PyErr_Occurred()) return seed;
  PyErr_Clear();
  throw py::type_error("[" + std::string(op) + "] seed is a " + Py_TYPE(value)->tp_name + ": must be an integer");
}

uint32_t small_argument(const char* op, const char* name, PyObject* value) {
  const int64_t number = integer_or(op, name, value, 0);
  if (number >= 0 && number <= int64_t{0xffffffff}) return static_cast<uint32_t>(number);
  throw py::value_error("[" + std::string(op) + "] " + name + " is " + std::to_string(number) +
                        ": must be between 0 and 4294967295");
}

PyObject* run(const char* op, const char* name, PyObject* (&values)[kValues], uint64_t seed) {
  const Array x = Array::dense(op, name, values[kX]);
  require_float(op, x, name);
  if (x.dimensions() == 0) {
    throw py::value_error("[" + std::string(op) + "] " + name + " is a scalar: must have at least one dimension");
  }
  const double p = number_or(op, "p", values[kP], 0.5);
  if (!(p >= 0 && p <= 1)) {
    throw py::value_error("[" + std::string(op) + "] p is " + std::to_string(p) + ": must be between 0 and 1");
  }
  const int64_t rows = x.size(0), columns = rows ? x.elements() / rows : 0;
  Array samples;
  if (given_or_null(values[kSamples])) {
    samples = Array::dense(op, "samples", values[kSamples]);
    if (samples.dtype() != Dtype::kInt64 || samples.dimensions() != 1 || samples.size(0) != rows) {
      throw py::value_error("[" + std::string(op) + "] samples is " + samples.shape_text() + " of " +
                            dtype_name(samples.dtype()) + ": must be int64, one number for each of " +
                            std::to_string(rows) + " rows");
    }
  }
  Result y(op, values[kOut], x,
           samples ? std::initializer_list<const Array*>{&x, &samples} : std::initializer_list<const Array*>{&x});
  for_float(x.dtype(), [&](auto type) {
    using T = decltype(type);
    DropoutArguments<T> g;
    g.rows = rows, g.columns = columns, g.x = x.data<T>(), g.y = y.data<T>();
    g.samples = samples ? samples.data<const int64_t>() : nullptr;
    g.seed = seed, g.p = p;
    g.layer = small_argument(op, "layer", values[kLayer]);
    g.epoch = small_argument(op, "epoch", values[kEpoch]);
    run_lanes(static_cast<double>(rows * columns) * 20, dropout_lanes(rows, columns, default_lanes()), {},
              [&](const Lane& lane) { dropout(lane, g); });
  });
  return y.finish();
}

PyObject* call_dropout(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<kValues> parameters("dropout", 2, 1, {"x", "p", "seed", "samples", "layer", "epoch", "out"});
  PyObject* values[kValues];
  parameters.parse(given, count, keywords, values);
  PyObject* const seed = values[kSeed] ? given_or_null(values[kSeed]) : nullptr;
  return run("dropout", "x", values, seed ? seed_argument("dropout", seed) : next_seed());
}

PyObject* call_dropout_vjp(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<kValues> parameters("dropout_vjp", 2, 1,
                                              {"dy", "p", "seed", "samples", "layer", "epoch", "out"});
  PyObject* values[kValues];
  parameters.parse(given, count, keywords, values);
  if (!values[kSeed]) {
    throw py::type_error("[dropout_vjp] seed is missing: give the one that dropout was given");
  }
  return run("dropout_vjp", "dy", values, seed_argument("dropout_vjp", values[kSeed]));
}

PyObject* call_seed(PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  static const Parameters<1> parameters("seed", 1, 1, {"n"});
  PyObject* values[1];
  parameters.parse(given, count, keywords, values);
  set_seed(seed_argument("seed", values[0]));
  Py_RETURN_NONE;
}

constexpr const char* kDropoutDoc =
    R"(dropout(x: ArrayLike, p: float = 0.5, *, seed: int | None = None, samples: ArrayLike | None = None, layer: int = 0, epoch: int = 0, out: NDArray | None = None) -> NDArray

Zero each element with probability ``p`` and divide the others by ``1 - p`` (Srivastava et al., "Dropout", 2014).

Which elements is a function of (seed, layer, epoch, sample, place in the sample), by Philox4x32-10: the same on any
machine, for any number of threads and any place of the sample in a batch.

Args:
    x: (samples, ...); float32 or float64.
    p: in [0, 1], rounded to a multiple of 1/65536.
    seed: an integer; without one, the next of the sequence that gr.seed starts.
    samples: (samples,) int64: each row's number; without them, 0, 1, 2, ...
    layer, epoch: integers of 32 bits, for masks that differ by layer and by epoch.
    out: where to write the result, as x; may be x.

>>> import numpy as np, gradring as gr
>>> y = gr.ops.dropout(np.ones((1000, 100), np.float32), 0.5, seed=1)
>>> sorted(set(y.ravel().tolist())), bool(abs(y.mean() - 1) < 0.02)
([0.0, 2.0], True)
)";
constexpr const char* kDropoutVjpDoc =
    R"(dropout_vjp(dy: ArrayLike, p: float = 0.5, *, seed: int, samples: ArrayLike | None = None, layer: int = 0, epoch: int = 0, out: NDArray | None = None) -> NDArray

The gradient of dropout by its input: ``dy`` under the same mask, which is drawn again, not stored.

Args:
    dy: the gradient by the output, (samples, ...); float32 or float64.
    p, seed, samples, layer, epoch: as they were given to dropout.
    out: where to write the result, as dy; may be dy.

>>> import numpy as np, gradring as gr
>>> x = np.ones((4, 8), np.float32)
>>> bool((gr.ops.dropout_vjp(x, 0.25, seed=3) == gr.ops.dropout(x, 0.25, seed=3)).all())
True
)";
constexpr const char* kSeedDoc =
    R"(seed(n: int) -> None

Start the process-wide sequence of seeds anew, for eager operations that draw without a seed of their own. A process
starts as after ``seed(0)``.

>>> import numpy as np, gradring as gr
>>> gr.seed(7); first = gr.ops.dropout(np.ones((2, 50), np.float32))
>>> gr.seed(7); bool((gr.ops.dropout(np.ones((2, 50), np.float32)) == first).all())
True
)";

}  // namespace

void bind_dropout(py::module_& m) {
  static PyMethodDef methods[] = {
      fast_method<call_dropout>("dropout", kDropoutDoc),
      fast_method<call_dropout_vjp>("dropout_vjp", kDropoutVjpDoc),
      fast_method<call_seed>("seed", kSeedDoc),
      {nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) < 0) throw py::error_already_set();
}

}  // namespace gradring
