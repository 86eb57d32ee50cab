// Engine: the programs, arenas and team of one model, and the state that is kept from step to step.
//
// | variable | writer            | readers | order              | why                                      |
// |----------|-------------------|---------|--------------------|------------------------------------------|
// | busy_    | EngineGuard       | same    | exchange acq, rel  | one thread at a time; others get an error|
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "gradring/export.h"
#include "program/cpu/executor.h"
#include "program/epoch.h"
#include "runtime/arena.h"
#include "runtime/batch_source.h"
#include "runtime/team.h"

namespace gradring {

enum class Mode : uint8_t { kTrain, kEvaluate, kPredict, kTrainWeighted, kEvaluateWeighted };
inline constexpr int kModes = 5;

// The programs for batches that have sample weights, or have none.
constexpr Mode mode_of(bool train, bool weighted) noexcept {
  if (weighted) return train ? Mode::kTrainWeighted : Mode::kEvaluateWeighted;
  return train ? Mode::kTrain : Mode::kEvaluate;
}

struct EngineOptions {
  int lanes = 1;
  int64_t accumulate = 1;
  uint64_t seed = 0;
  bool check_finite = true;
};

class GRADRING_API Engine {
 public:
  // arenas: those of parameters, gradients and state. The engine adds those of the temps.
  Engine(Arenas arenas, const EngineOptions& options);

  Team& team() noexcept { return team_; }
  const EngineOptions& options() const noexcept { return options_; }
  void set_seed(uint64_t seed) noexcept { options_.seed = seed; }  // for a checkpoint's seed; call it between two runs
  TrainState& state() noexcept { return state_; }
  Totals& totals() noexcept { return totals_; }  // the totals of training since the engine was made
  // Replaces the arenas and forgets all programs.
  void set_arenas(Arenas arenas) noexcept;

  // Adds a program. There is one for each mode and number of rows. Throws Error.
  Executor& add(Mode mode, int64_t rows, const Program& program);
  void clear() noexcept;
  // Whether steps from now on record their instructions and barriers in the trace.
  void trace(bool on);
  const ProgramSet& programs(Mode mode) const noexcept { return sets_[static_cast<size_t>(mode)]; }

  // Trains or evaluates as run_chunk does, on as many lanes as suit the program of the next batch.
  ChunkResult chunk(bool train, Feed& feed, ChunkOptions options, Totals* totals) noexcept;
  // Runs one training step on a filled batch. `rates` are the learning rates of its update. `ranks`: those of processes that take
  // the step together, where the batch of one rank may have no weight.
  ChunkResult step(Executor& executor, const Batch& batch, const double* rates, int64_t rate_columns,
                   const RankSteps* ranks = nullptr) noexcept;
  // Runs the forward pass over a whole source. The result of row r of the source goes to out + r * row_bytes.
  ChunkResult predict(Feed& feed, std::byte* out, int64_t row_bytes) noexcept;

  ChunkOptions chunk_options() const noexcept;

  // The numbers 0, 1, ..., which stand in for the numbers of the samples where a batch has none.
  const int64_t* row_numbers(int64_t rows);

  // Every call enters the engine before it uses it, and leaves it afterwards. `enter` says whether the call may go on.
  enum class Entry : uint8_t { kEntered, kBusy, kForked };
  Entry enter(bool writes) noexcept;
  void leave() noexcept { busy_.store(false, std::memory_order_release); }

 private:
  void reserve(const Arena& temps);

  EngineOptions options_;
  Team team_;
  Arenas arenas_;
  std::vector<std::unique_ptr<Executor>> executors_;
  ProgramSet sets_[kModes];
  TrainState state_;
  Totals totals_;
  std::vector<int64_t> row_numbers_;
  bool traced_ = false;
  std::atomic<bool> busy_{false};
  uint64_t born_in_fork_;
};

}  // namespace gradring
