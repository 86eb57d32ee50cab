#include "bindings/step_fast_path.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/gil.h"

namespace gradring {

namespace {

constexpr int kMostDims = 8;
constexpr const char* kCapsuleName = "gradring.step";

// The row shape and the dtype that arrays must have, checked by comparing a few words. NumPy's built-in dtypes are singletons; an
// array whose dtype is equal but another object takes the slow path.
struct Expected {
  PyObject* dtype = nullptr;
  int ndim = 1;
  py::ssize_t dims[kMostDims] = {};

  const void* data_of(PyObject* object, py::ssize_t* rows) const noexcept {
    if (Py_TYPE(object) != array_type) return nullptr;
    const auto* array = py::detail::array_proxy(object);
    constexpr int kWell = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if (array->descr != dtype || array->nd != ndim || (array->flags & kWell) != kWell) return nullptr;
    for (int d = 1; d < ndim; ++d) {
      if (array->dimensions[d] != dims[d]) return nullptr;
    }
    *rows = array->dimensions[0];
    return array->data;
  }

  static inline PyTypeObject* array_type = nullptr;
};

struct StepFastPath {
  Engine* engine = nullptr;
  py::object owner;
  py::object ranks_owner;
  std::shared_ptr<RankStep> ranks;  // if other ranks or replicas take each step together with this one
  py::object x_dtype;
  py::object y_dtype;
  py::object weight_dtype;
  Expected x;
  Expected y;
  Expected weight;
  // Learning rates of the updates from number first_update on, `columns` for each. If `constant` is set, the rates of
  // one update apply to all.
  std::shared_ptr<const std::vector<double>> rates = std::make_shared<std::vector<double>>();
  int64_t columns = 1;
  int64_t first_update = 0;
  bool constant = false;

  // The rates of the next update; null if `rates` does not have them.
  const double* next_rates() const noexcept {
    const int64_t at = constant ? 0 : (engine->state().updates - first_update) * columns;
    return at < 0 || at >= static_cast<int64_t>(rates->size()) ? nullptr : rates->data() + at;
  }
};

// A step of all ranks, in an engine that the caller has entered. The slow path could not take it again, because the other ranks
// have taken it. So another function tells how it has ended.
PyObject* step_of_ranks(StepFastPath& path, PyObject* self, PyObject* const* args, Py_ssize_t count,
                        const Batch& batch) noexcept {
  const auto kept = path.rates;
  const bool good = path.ranks->take(*path.engine, batch, mode_of(true, count == 3), path.next_rates(), path.columns);
  const double loss = path.engine->totals().last_loss;
  path.engine->leave();
  return good ? PyFloat_FromDouble(loss)
              : PyObject_Vectorcall(PyTuple_GET_ITEM(self, 2), args, static_cast<size_t>(count), nullptr);
}

PyObject* step(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) noexcept {
  auto* path = static_cast<StepFastPath*>(PyCapsule_GetPointer(PyTuple_GET_ITEM(self, 0), kCapsuleName));
  if (path == nullptr) return nullptr;
  const bool weighted = count == 3;
  const double* rates = path->next_rates();
  if ((count == 2 || weighted) && names == nullptr && rates != nullptr) {
    Batch batch;
    py::ssize_t rows = 0, target_rows = 0, weights = 0;
    batch.fields[0] = path->x.data_of(args[0], &rows);
    batch.fields[1] = path->y.data_of(args[1], &target_rows);
    if (weighted) batch.fields[2] = path->weight.data_of(args[2], &weights);
    Executor* executor = nullptr;
    bool ready = false;
    if (batch.fields[0] != nullptr && batch.fields[1] != nullptr && rows == target_rows &&
        (!weighted || (batch.fields[2] != nullptr && weights == rows))) {
      const Mode mode = mode_of(true, weighted);
      if (path->ranks == nullptr) executor = path->engine->programs(mode).find(rows);
      ready = path->ranks == nullptr ? executor != nullptr : path->ranks->may_step(*path->engine, mode, rows);
    }
    if (ready && path->engine->enter(true) == Engine::Entry::kEntered) {
      batch.rows = rows;
      if (path->ranks != nullptr) return step_of_ranks(*path, self, args, count, batch);
      batch.samples = path->engine->row_numbers(rows);
      ChunkResult result;
      if (executor->keeps_gil()) {
        result = path->engine->step(*executor, batch, rates, path->columns);
      } else {
        // Another thread may set other rates during the step, so keep these alive until it ends.
        const auto kept = path->rates;
        const int64_t columns = path->columns;
        const GilRelease release;
        result = path->engine->step(*executor, batch, rates, columns);
      }
      const double loss = path->engine->totals().last_loss;
      path->engine->leave();
      if (result.fault == Fault::kNone) return PyFloat_FromDouble(loss);
      // Nothing has changed, so the slow path finds the same fault again and raises an error that explains it. If a callback
      // failed, it has kept its exception, which the slow path raises first.
    }
  }
  return PyObject_Vectorcall(PyTuple_GET_ITEM(self, 1), args, static_cast<size_t>(count), names);
}

PyMethodDef kStep = {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&step)),
                     METH_FASTCALL | METH_KEYWORDS,
                     "step(x, y, weight=None)\n--\n\nOne training step; returns the batch's loss."};

Expected expected_for(const py::object& dtype, const std::vector<int64_t>& shape) {
  Expected expected;
  if (shape.size() + 1 > kMostDims) throw py::value_error("too many dimensions");
  expected.dtype = dtype.ptr();
  expected.ndim = static_cast<int>(shape.size()) + 1;
  for (size_t d = 0; d < shape.size(); ++d) expected.dims[d + 1] = shape[d];
  return expected;
}

}  // namespace

void enter_or_throw(Engine& engine, bool writes) {
  switch (engine.enter(writes)) {
    case Engine::Entry::kEntered: return;
    case Engine::Entry::kBusy:
      throw Error(Code::kUnavailable,
                  "[engine] it is running already, in another thread or further up this one's stack: use one engine "
                  "per thread, or a lock around it");
    case Engine::Entry::kForked:
      throw Error(Code::kUnavailable,
                  "[engine] it was made before this process was forked and shares its parameters with the parent: "
                  "make a new model and engine here");
  }
}

namespace {

StepFastPath& fast_path_of(const py::capsule& capsule) { return *capsule.get_pointer<StepFastPath>(); }

// Returns (function, capsule): the function behind Session.step, and a handle with which the session sets what arrays it takes.
py::tuple make_step_fast_path(py::object engine, const py::object& slow, py::object ranks, const py::object& ended) {
  Expected::array_type = py::detail::npy_api::get().PyArray_Type_;
  auto path = std::make_unique<StepFastPath>();
  path->engine = engine.cast<Engine*>();
  path->owner = std::move(engine);
  if (!ranks.is_none()) path->ranks = rank_step_of(ranks);
  path->ranks_owner = std::move(ranks);
  py::object capsule = py::reinterpret_steal<py::object>(PyCapsule_New(path.get(), kCapsuleName, [](PyObject* self) {
    delete static_cast<StepFastPath*>(PyCapsule_GetPointer(self, kCapsuleName));
  }));
  if (!capsule) throw py::error_already_set();
  (void)path.release();
  // `slow` and `ended` refer back to the function that is made here. They are in a tuple and not in the capsule, because the
  // garbage collector sees what a tuple holds, but not what a capsule holds: no engine would ever be freed.
  const py::tuple self = py::make_tuple(capsule, slow, ended);
  return py::make_tuple(py::reinterpret_steal<py::object>(PyCFunction_New(&kStep, self.ptr())), capsule);
}

void set_expected_shapes(const py::capsule& capsule, const std::string& dtype, const std::vector<int64_t>& input_shape,
                         const std::string& target_dtype, const std::vector<int64_t>& target_shape,
                         const std::string& weight_dtype) {
  StepFastPath& path = fast_path_of(capsule);
  path.x_dtype = py::dtype::from_args(py::str(dtype));
  path.y_dtype = py::dtype::from_args(py::str(target_dtype));
  path.x = expected_for(path.x_dtype, input_shape);
  path.y = expected_for(path.y_dtype, target_shape);
  path.weight_dtype = weight_dtype.empty() ? py::object(py::none()) : py::dtype::from_args(py::str(weight_dtype));
  path.weight = expected_for(path.weight_dtype, {});  // no array has the dtype None
}

void set_expected_rates(const py::capsule& capsule, const py::array_t<double, py::array::c_style>& rates,
                        int64_t first_update, bool constant) {
  StepFastPath& path = fast_path_of(capsule);
  path.columns = rates.ndim() == 2 ? std::max<int64_t>(rates.shape(1), 1) : 1;
  path.rates = std::make_shared<std::vector<double>>(rates.data(), rates.data() + rates.size());
  path.first_update = first_update;
  path.constant = constant;
}

}  // namespace

void bind_step_fast_path(py::module_& m) {
  m.def("make_step_fast_path", &make_step_fast_path, py::arg("engine"), py::arg("slow"), py::arg("ranks") = py::none(),
        py::arg("ended") = py::none(),
        "Make the function behind Session.step, (x, y) -> loss, which calls slow(x, y) if it cannot run the step "
        "itself. `ranks` is a Ranks or Replicas object, or a pair of both. If it has run a step together with them and "
        "the "
        "step failed or was interrupted, it calls ended(x, y). Return it with a handle for set_expected_shapes and "
        "set_expected_rates.");
  m.def("set_expected_shapes", &set_expected_shapes, py::arg("fast_path"), py::arg("dtype"), py::arg("input_shape"),
        py::arg("target_dtype"), py::arg("target_shape"), py::arg("weight_dtype") = "");
  m.def("set_expected_rates", &set_expected_rates, py::arg("fast_path"), py::arg("rates"), py::arg("first_update"),
        py::arg("constant"));
}

}  // namespace gradring
