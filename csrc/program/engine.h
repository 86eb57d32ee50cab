// Engine: one model's programs, arenas and team, and the state that goes from step to step.
//
// | variable | writer            | readers | order              | why                                      |
// |----------|-------------------|---------|--------------------|------------------------------------------|
// | busy_    | whoever enters    | same    | exchange acq, rel  | one thread at a time; others are told    |
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

enum class Mode : uint8_t { kTrain, kEvaluate, kPredict };
inline constexpr int kModes = 3;

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
  void set_seed(uint64_t seed) noexcept { options_.seed = seed; }  // a checkpoint's, between two runs
  TrainState& state() noexcept { return state_; }
  Totals& totals() noexcept { return totals_; }  // of training, since the engine was made
  void add_totals(const Totals& more) noexcept;
  // Other arenas; forgets all programs.
  void set_arenas(Arenas arenas) noexcept;

  // One program for each mode and number of rows. Throws Error.
  Executor& add(Mode mode, int64_t rows, const Program& program);
  void clear() noexcept;
  // Whether steps from now on record their instructions and barriers in the trace.
  void trace(bool on);
  const ProgramSet& programs(Mode mode) const noexcept { return sets_[static_cast<size_t>(mode)]; }

  // Steps, or evaluation, as run_chunk does it, on the lanes that suit the program of the batch that waits.
  ChunkResult chunk(bool train, Feed& feed, ChunkOptions options, Totals* totals) noexcept;
  // One training step on a filled batch; rates: the learning rates of its update.
  ChunkResult step(Executor& executor, const Batch& batch, const double* rates, int64_t rate_columns) noexcept;
  // Steps that say where their time goes: for every lane and instruction, the median seconds of waiting at its barrier
  // and of work, lane by lane. They train as any other step.
  struct Work {
    double wait;
    double work;
  };
  std::vector<Work> profile(Executor& executor, const Batch& batch, double rate, int steps);
  // Forward over a whole source; row r of the source goes to out + r * row_bytes.
  ChunkResult predict(Feed& feed, std::byte* out, int64_t row_bytes) noexcept;

  ChunkOptions chunk_options() const noexcept;

  // Row numbers 0, 1, ... for batches that do not say which samples they are.
  const int64_t* row_numbers(int64_t rows);

  // Held while a call runs. Tells why it could not be had.
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
