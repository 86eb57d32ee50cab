#include "bindings/engine_data.h"

#include <iterator>

#include "bindings/engine_counts.h"
#include "bindings/held_error.h"

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
  constexpr const char* faults[] = {"", "nonfinite", "label", "callback", "gradient", "id", "weight", "overflow"};
  constexpr const char* names[] = {"end", "fault", "position", "rows", "row", "sample", "place", "value"};
  static PyObject* keys[std::size(names)];  // the GIL guards them
  throw_status(result.status);
  return dict_of(
      keys, names,
      {PyUnicode_InternFromString(ends[static_cast<int>(result.end)]),
       PyUnicode_InternFromString(faults[static_cast<int>(result.fault)]), number(result.position), number(result.rows),
       number(result.row), number(result.sample), number(result.place), number(result.value)});
}

py::dict result_of(const ChunkResult& result, PyFeed& feed) {
  feed.throw_for(result.status);
  return result_of(result);
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

py::tuple numbers_of(const TrainState& state) {
  const EpochSums &now = state.sums, &before = state.before_group;
  const double numbers[] = {
      now.loss_sum,    now.loss_weight,    static_cast<double>(now.correct),    static_cast<double>(now.samples),
      before.loss_sum, before.loss_weight, static_cast<double>(before.correct), static_cast<double>(before.samples)};
  py::tuple out(std::size(numbers));
  for (size_t i = 0; i < std::size(numbers); ++i) {
    PyObject* const number = PyFloat_FromDouble(numbers[i]);
    if (number == nullptr) throw py::error_already_set();
    PyTuple_SET_ITEM(out.ptr(), static_cast<Py_ssize_t>(i), number);
  }
  return out;
}

void take_numbers(TrainState* state, const std::array<double, 8>& from) {
  const auto sums = [&](size_t at) {
    return EpochSums{from[at], from[at + 1], static_cast<int64_t>(from[at + 2]), static_cast<int64_t>(from[at + 3])};
  };
  for (const size_t at : {2, 3, 6, 7}) {
    if (from[at] >= 0 && from[at] <= 9007199254740992.0) continue;  // 2**53; NaN fails both
    throw Error(Code::kInvalidArgument, "[Engine] sums: a count must be at least 0 and at most 2**53");
  }
  state->sums = sums(0);
  state->before_group = sums(4);
}

ChunkOptions options_for(ChunkOptions options, bool train, const RateArray& rates, int64_t most_steps, double seconds) {
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
