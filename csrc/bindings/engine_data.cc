#include "bindings/engine_data.h"

#include <iterator>

#include "bindings/held_error.h"
#include "bindings/program_data.h"

namespace gradring {

Mode mode_from_name(const std::string& name) {
  constexpr const char* names[kModes] = {"train", "evaluate", "predict", "train weighted", "evaluate weighted"};
  for (int i = 0; i < kModes; ++i) {
    if (name == names[i]) return static_cast<Mode>(i);
  }
  throw Error(Code::kInvalidArgument, "[program] unknown mode " + name);
}

namespace {

PyObject* number(int64_t value) { return PyLong_FromLongLong(value); }
PyObject* number(double value) { return PyFloat_FromDouble(value); }

// A dict with these keys, which are made once: an epoch of a small data set takes less time than twenty strings. It takes over
// the references to the values.
template <size_t N>
py::dict dict_of(PyObject** keys, const char* const (&names)[N], PyObject* const (&values)[N]) {
  py::dict out;
  bool good = true;
  for (size_t i = 0; i < N; ++i) {
    if (keys[i] == nullptr) keys[i] = PyUnicode_InternFromString(names[i]);
    const py::object value = py::reinterpret_steal<py::object>(values[i]);
    good = good && keys[i] && value && PyDict_SetItem(out.ptr(), keys[i], value.ptr()) == 0;
  }
  if (!good) throw py::error_already_set();
  return out;
}

}  // namespace

py::dict result_of(const ChunkResult& result) {
  constexpr const char* ends[] = {"time", "steps", "rates", "epoch", "program", "error"};
  constexpr const char* faults[] = {"", "nonfinite", "label", "callback", "gradient", "id", "weight"};
  constexpr const char* names[] = {"end", "fault", "position", "rows", "row", "sample", "place", "value"};
  static PyObject* keys[std::size(names)];  // the GIL guards them
  throw_status(result.status);
  return dict_of(
      keys, names,
      {PyUnicode_InternFromString(ends[static_cast<int>(result.end)]),
       PyUnicode_InternFromString(faults[static_cast<int>(result.fault)]), number(result.position), number(result.rows),
       number(result.row), number(result.sample), number(result.place), number(result.value)});
}

py::dict totals_of(const Totals& t) {
  constexpr const char* names[] = {"loss_sum",     "loss_weight",     "correct",        "samples",
                                   "steps",        "updates",         "last_loss",      "gradient_norm",
                                   "data_seconds", "compute_seconds", "update_seconds", "reduction_seconds"};
  static PyObject* keys[std::size(names)];
  return dict_of(keys, names,
                 {number(t.loss_sum), number(t.loss_weight), number(t.correct), number(t.samples), number(t.steps),
                  number(t.updates), number(t.last_loss), number(t.gradient_norm), number(t.data_seconds),
                  number(t.compute_seconds), number(t.update_seconds), number(t.reduction_seconds)});
}

Arenas arenas_from(const ArenaList& given) {
  Arenas arenas;
  for (const auto& [name, kind, memory] : given) {
    const BufferKind known = kind_from_name(kind);
    if (!has_arena(known) || known == BufferKind::kTemp || memory == nullptr) {
      throw Error(Code::kInvalidArgument,
                  "[Engine] arena " + name + " is of kind " + kind + ": must be param, grad or state, with memory");
    }
    arenas.set(name, known, memory->data(), static_cast<int64_t>(memory->size()), memory);
  }
  return arenas;
}

ChunkOptions options_for(const Engine& engine, bool train, const RateArray& rates, int64_t most_steps, double seconds) {
  ChunkOptions options = engine.chunk_options();
  options.train = train;
  options.rates = rates.data();
  // An array with two axes has a row per update; an array with one axis has one learning rate per update.
  options.rate_columns = rates.ndim() == 2 ? rates.shape(1) : 1;
  options.rate_count = options.rate_columns > 0 ? rates.size() / options.rate_columns : 0;
  options.most_steps = most_steps;
  if (seconds > 0) options.deadline = deadline_in(std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)));
  return options;
}

}  // namespace gradring
