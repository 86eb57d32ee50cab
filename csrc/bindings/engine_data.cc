#include "bindings/engine_data.h"

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

py::dict result_of(const ChunkResult& result) {
  constexpr const char* ends[] = {"time", "steps", "rates", "epoch", "program", "error"};
  constexpr const char* faults[] = {"", "nonfinite", "label", "callback", "gradient", "id", "weight"};
  throw_status(result.status);
  py::dict out;
  out["end"] = ends[static_cast<int>(result.end)];
  out["fault"] = faults[static_cast<int>(result.fault)];
  out["position"] = result.position;
  out["rows"] = result.rows;
  out["row"] = result.row;
  out["sample"] = result.sample;
  out["place"] = result.place;
  out["value"] = result.value;
  return out;
}

py::dict totals_of(const Totals& t) {
  py::dict out;
  out["loss_sum"] = t.loss_sum;
  out["loss_weight"] = t.loss_weight;
  out["correct"] = t.correct;
  out["samples"] = t.samples;
  out["steps"] = t.steps;
  out["updates"] = t.updates;
  out["last_loss"] = t.last_loss;
  out["gradient_norm"] = t.gradient_norm;
  out["data_seconds"] = t.data_seconds;
  out["compute_seconds"] = t.compute_seconds;
  out["update_seconds"] = t.update_seconds;
  out["reduction_seconds"] = t.reduction_seconds;
  return out;
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
