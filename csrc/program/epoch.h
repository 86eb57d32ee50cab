// The epoch loop: next batch, fill, step, sum the metrics, without leaving the team.
#pragma once

#include <cstdint>
#include <vector>

#include "gradring/export.h"
#include "program/cpu/executor.h"
#include "runtime/batch_source.h"
#include "runtime/rank_steps.h"
#include "runtime/status.h"
#include "runtime/team.h"
#include "runtime/wait.h"

namespace gradring {

// Sums over the steps of a run, and the seconds of each phase, as lane 0 measured them.
struct Totals {
  double loss_sum = 0;
  double loss_weight = 0;
  int64_t correct = 0;
  int64_t samples = 0;
  int64_t steps = 0;    // how many batches there were
  int64_t updates = 0;  // how many updates of the parameters there were
  double last_loss = 0;
  double gradient_norm = 0;  // the norm at the last update, if it was computed
  double data_seconds = 0;
  double compute_seconds = 0;
  double update_seconds = 0;
  double reduction_seconds = 0;  // the time in which replicas meet and sum their gradients

  // Adds the totals of a later run. Of the last loss and the gradient's norm, the later run's stay.
  void add(const Totals& later) noexcept {
    loss_sum += later.loss_sum;
    loss_weight += later.loss_weight;
    correct += later.correct;
    samples += later.samples;
    steps += later.steps;
    updates += later.updates;
    last_loss = later.last_loss;
    gradient_norm = later.gradient_norm;
    data_seconds += later.data_seconds;
    compute_seconds += later.compute_seconds;
    update_seconds += later.update_seconds;
    reduction_seconds += later.reduction_seconds;
  }
};

// Sums over the batches of one epoch, added in their order. So they have the same bits however the epoch is cut into chunks.
struct EpochSums {
  double loss_sum = 0;
  double loss_weight = 0;
  int64_t correct = 0;
  int64_t samples = 0;
};

// The counts that continue from step to step, and from run to run.
struct TrainState {
  int64_t updates = 0;  // how many updates there were: the next one has the number updates + 1
  int64_t fresh = 0;    // how many updates were done when the optimizer's state was last zero
  uint64_t draws = 0;   // how many forward passes there were so far: a part of the key of dropout's random numbers
  int64_t pending = 0;  // batches whose gradients wait for an update (accumulate > 1)
  double pending_weight = 0;
  double loss_scale = 0;   // the scale of the next update; 0: this training scales no loss
  int64_t good = 0;        // updates since the scale has changed
  EpochSums sums;          // sums over the training batches since the caller last set them
  EpochSums before_group;  // the value of `sums` before the first of the pending batches

  // Adapts the scale to whether the gradients of an update were finite. Devices call it, too.
  constexpr void adapt_scale(bool finite) noexcept {
    if (loss_scale == 0) return;
    good = finite ? good + 1 : 0;
    if (!finite) loss_scale = loss_scale / 2 < kLeastLossScale ? kLeastLossScale : loss_scale / 2;
    if (good < kStepsToGrow) return;
    good = 0;
    loss_scale = loss_scale * 2 > kMostLossScale ? kMostLossScale : loss_scale * 2;
  }

  void drop_pending() noexcept {
    if (pending > 0) sums = before_group;
    draws -= static_cast<uint64_t>(pending);
    pending = 0;
    pending_weight = 0;
  }
};

struct ChunkOptions {
  bool train = true;       // false: only the forward pass and the metrics are computed
  bool weighted = false;   // the batches have sample weights
  int64_t accumulate = 1;  // batches per update
  uint64_t seed = 0;
  bool check_finite = true;
  bool need_weight = false;       // a batch whose samples' weights are all zero is a fault
  int64_t most_steps = -1;        // -1: no limit
  const double* rates = nullptr;  // learning rates of the next updates, rate_columns for each
  int64_t rate_count = 0;         // the number of updates for which `rates` has learning rates
  int64_t rate_columns = 1;
  Deadline deadline = kNoDeadline;   // no step begins after it
  const RankSteps* ranks = nullptr;  // the ranks that train together, if any: gives the rows of a step on all ranks
};

enum class ChunkEnd : uint8_t { kTime, kSteps, kRates, kEpoch, kProgram, kError };

struct ChunkResult {
  ChunkEnd end = ChunkEnd::kTime;
  Status status;  // the error of a kError
  Fault fault = Fault::kNone;
  int64_t position = 0;  // the position of the batch that failed in the epoch's order
  int64_t rows = 0;      // kProgram: the rows of the batch that no program fits; it is the next one
  int64_t sample = -1;   // the sample whose label or id is out of range
  int64_t row = -1;
  int64_t place = -1;  // an id that is out of range: its column in the row
  int64_t value = 0;   // an id that is out of range: the id

  void take_fault(const StepRecord& step) noexcept {
    fault = step.fault;
    row = step.fault_row, place = step.fault_place, value = step.fault_value;
  }
};

// Finds the executor for a batch's number of rows. If there is none, the chunk ends with kProgram and keeps the batch for later.
struct ProgramSet {
  struct Entry {
    int64_t rows;
    Executor* executor;
  };
  std::vector<Entry> entries;

  Executor* find(int64_t rows) const noexcept {
    for (const Entry& entry : entries) {
      if (entry.rows == rows) return entry.executor;
    }
    return nullptr;
  }
};

// A source that is being read. Between chunks it keeps a batch that was taken from the source and not yet trained on.
struct Feed {
  BatchSource* source = nullptr;
  Batch waiting;
  bool has_waiting = false;

  // Makes a batch wait, and returns kSteps. If there is none, says why: kTime, kEpoch, or kError with the source's status.
  ChunkEnd fetch(Deadline deadline, Status* status) noexcept {
    if (!has_waiting) {
      const Status got = source->next(&waiting, deadline);
      if (got.code() == Code::kTimeout) return ChunkEnd::kTime;
      if (!got.ok()) {
        *status = got;
        return ChunkEnd::kError;
      }
      has_waiting = true;
    }
    return waiting.rows == 0 ? ChunkEnd::kEpoch : ChunkEnd::kSteps;
  }
};

// Runs steps until the deadline, a limit, the end of the epoch or a fault. On a fault the parameters are those of the
// last whole step. `lanes` is how many lanes to run on.
ChunkResult run_chunk(Team& team, int lanes, const ProgramSet& programs, Feed* feed, const ChunkOptions& options,
                      TrainState* state, Totals* totals) noexcept;

// One training step on a batch that is already filled; options.rates begins with its learning rates.
ChunkResult run_step(Team& team, Executor& executor, const Batch& batch, const ChunkOptions& options, TrainState* state,
                     Totals* totals) noexcept;

// Applies the gradients of an incomplete group of accumulated batches, if there are any. If one of them is not finite, it
// changes nothing and returns a fault.
GRADRING_API ChunkResult flush_updates(Team& team, Executor& executor, const ChunkOptions& options, TrainState* state,
                                       Totals* totals) noexcept;

}  // namespace gradring
