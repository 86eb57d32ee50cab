#include "bindings/bindings.h"
#include "bindings/fast_call.h"
#include "bindings/gil.h"
#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/peak/peak.h"
#include "ops/tiles/tiles.h"
#include "runtime/core_distance.h"
#include "runtime/cpu.h"
#include "runtime/default_team.h"
#include "runtime/seed.h"
#include "runtime/status.h"
#include "runtime/tile_unit.h"
#include "runtime/trace.h"

namespace gradring {

namespace {

// A class of gradring.errors, as a borrowed reference; or RuntimeError, their base, if the interpreter can no longer import.
PyObject* package_error(const char* name) noexcept {
  PyObject* type = nullptr;
  if (PyObject* errors = PyImport_ImportModule("gradring.errors")) {
    type = PyObject_GetAttrString(errors, name);
    Py_DECREF(errors);
  }
  if (type == nullptr) {
    PyErr_Clear();
    return PyExc_RuntimeError;
  }
  Py_DECREF(type);  // the module keeps it
  return type;
}

}  // namespace

void set_python_error(const Error& error) noexcept {
  PyObject* type = nullptr;
  switch (error.code()) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange: type = PyExc_ValueError; break;
    case Code::kWrongType: type = PyExc_TypeError; break;
    case Code::kOutOfMemory: type = PyExc_MemoryError; break;
    case Code::kTimeout: type = PyExc_TimeoutError; break;
    case Code::kIo: type = PyExc_OSError; break;
    case Code::kClosed: type = package_error("LoaderError"); break;
    case Code::kNonFinite: type = package_error("NonFinite"); break;
    case Code::kInternal: type = PyExc_RuntimeError; break;
    default: type = package_error("GradringError"); break;
  }
  PyErr_SetString(type, error.what());
}

void raise_current_exception() noexcept {
  try {
    throw;
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const Error& error) {
    set_python_error(error);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      set_python_error(error);
    }
  });
}

void bind_runtime(py::module_& m) {
  m.attr("build_type") = GRADRING_BUILD_TYPE;
  m.def("usable_cores", &usable_cores, "Return how many cores this process may use.");
  m.def("core_round_trip", &core_round_trip, py::call_guard<GilRelease>(),
        "Measure how many seconds (the median) a word takes from one core to another and back. Return 0 if there is "
        "only one core.");
  m.def("detected_isa", [] { return isa_name(detected_isa()); });
  m.def("active_isa", [] { return isa_name(active_isa()); });
  m.def(
      "tile_unit", [] { return tile_unit_name(tile_unit()); },
      "Return \"permitted\", \"refused\", \"switched off\" or \"absent\": whether products may use the processor's "
      "tile "
      "unit.");
  m.def(
      "measure_tile_flops", [](bool dots) { return measure_tile_flops(default_lanes(), dots); },
      py::arg("dots") = false, py::call_guard<GilRelease>(),
      "Measure the rate of bf16 products on all threads: those of the tile unit, or of vdpbf16ps. Return it in "
      "operations per "
      "second; 0 without the unit or the instruction.");
  m.def("dot_advantage", &dot_advantage, py::call_guard<GilRelease>(),
        "Return what tile_unit_advantage returns, for vdpbf16ps.");
  m.def(
      "bf16_way",
      [] {
        const Bf16Way way = bf16_way();
        return way == Bf16Way::kTiles ? "tiles" : way == Bf16Way::kDots ? "dots" : "widened";
      },
      py::call_guard<GilRelease>(),
      "Return what products of bfloat16 use: \"tiles\" (the tile unit), \"dots\" (vdpbf16ps) or \"widened\" (fp32 "
      "multiply-adds).");
  m.def("tile_unit_advantage", &tile_unit_advantage, py::call_guard<GilRelease>(),
        "Return how many times as many operations per second the tile unit does as fp32 multiply-adds; 0 without the "
        "unit. The first call measures it.");
  m.def(
      "set_isa",
      [](std::string_view name) {
        for (Isa isa : {Isa::kBase, Isa::kAvx2, Isa::kAvx512}) {
          if (name == isa_name(isa)) return set_isa(isa);
        }
        throw py::value_error("[set_isa] name is '" + std::string(name) + "': must be base, avx2 or avx512");
      },
      py::arg("name"),
      "Run kernels at this level from now on, for tests. Return False, and change nothing, if the processor lacks the "
      "level.");

  m.def("trace_start", &trace_start, py::arg("events_per_thread") = size_t{1} << 20,
        "Forget all earlier spans, and record spans from now on.");
  m.def("trace_stop", &trace_stop);
  m.def("trace_is_on", [] { return trace_is_on.load(std::memory_order_relaxed); });
  m.def(
      "trace_record",
      [](std::string_view name, int64_t begin_ns, int64_t end_ns) {
        if (trace_is_on.load(std::memory_order_relaxed)) trace_record(trace_name(name), begin_ns, end_ns);
      },
      py::arg("name"), py::arg("begin_ns"), py::arg("end_ns"),
      "Add a span of the calling thread, whose times are those of time.perf_counter_ns(). While the trace is off, do "
      "nothing.");
  m.def(
      "trace_write",
      [](const std::string& path) {
        const GilRelease release;
        throw_if(trace_write(path.c_str()));
      },
      py::arg("path"), "Write the recorded spans as Chrome trace JSON.");

  m.def(
      "measure_peak_flops", [](bool wide) { return measure_peak_flops(default_lanes(), wide); },
      py::arg("wide") = false, py::call_guard<GilRelease>(),
      "Measure the peak rate of float32 multiply-adds, with `wide` of float64, in registers on all threads. Return it "
      "in "
      "operations per second; a multiply-add is two operations.");
  m.def(
      "seed",
      [](const py::object& n) {
        const uint64_t seed = PyLong_AsUnsignedLongLongMask(n.ptr());
        if (PyBool_Check(n.ptr()) || (seed == ~uint64_t{0} && PyErr_Occurred())) {
          PyErr_Clear();
          throw py::type_error("[seed] n is a " + std::string(Py_TYPE(n.ptr())->tp_name) + ": must be an integer");
        }
        set_seed(seed);
      },
      py::arg("n"), R"(
Restart the sequence of seeds of this process, from which eager operations that are given no seed draw. A process
starts as if ``seed(0)`` had been called.

It affects ``gr.ops.dropout`` without ``seed=``. Everything else that draws has a seed of its own, whose default is 0, so
its numbers repeat without a call of this function: ``Trainer(seed=)`` (initial parameters, dropout, the order of arrays),
``model.init(seed)``, and ``Loader(seed=)`` (order, random transforms, and the generators of functions with ``rng=True``).
Functions of your own that draw from ``numpy.random`` or ``random`` repeat if you seed those, and in worker processes
with ``gr.sources.Callable(reseed=True)``.

>>> import numpy as np, gradring as gr
>>> gr.seed(7); first = gr.ops.dropout(np.ones((2, 50), np.float32))
>>> gr.seed(7); bool((gr.ops.dropout(np.ones((2, 50), np.float32)) == first).all())
True
)");
  m.def("get_num_threads", &default_lanes, "Return how many threads one eager operation may use.");
  m.def(
      "set_num_threads",
      [](const py::object& n) {
        const auto whole = py::module_::import("gradring.arguments").attr("whole");
        set_default_lanes(whole("set_num_threads", "n", n, 1, 256).cast<int>());
      },
      py::arg("n"),
      "Set how many threads one eager operation may use, from 1 to 256. The initial number is usable_cores().");
}

}  // namespace gradring
