#include "program/epoch.h"

#include <algorithm>

#include "runtime/ticks.h"
#include "runtime/trace.h"

namespace gradring {

namespace {

// What lane 0 tells the other lanes about a step. Two of them alternate, so that lane 0 can prepare the next one while slower
// lanes still read this one.
struct Turn {
  bool stop = false;
  Executor* executor = nullptr;
  Batch batch;
  StepRecord given;
};

// Lane 0's bookkeeping of a run: it prepares the record of each step, and collects the results.
struct Ledger {
  const ChunkOptions& options;
  TrainState& state;
  Totals& totals;
  ChunkResult result;
  int64_t steps = 0;
  int64_t updates = 0;
  StepTicks ticks;

  void tell(Turn* turn) const noexcept {
    StepRecord& given = turn->given;
    given = StepRecord{};
    given.seed = options.seed;
    given.draw = state.draws;
    given.check_finite = options.check_finite;
    given.need_weight = options.need_weight;
    given.samples = turn->batch.samples;
    given.first_sample = turn->batch.position;
    given.moment = moment_of(state.pending == 0, state.pending + 1 >= options.accumulate);
    if (!options.train) return;
    given.rates = options.rates + updates * options.rate_columns;
    given.rate_count = options.rate_columns;
    given.learning_rate = *given.rates;
    given.number = state.updates - state.fresh + 1;
    given.pending_weight = state.pending_weight;
    given.loss_scale = state.loss_scale == 0 ? 1 : state.loss_scale;
  }

  // Collects the results of a step. Lane 0 calls this after each one.
  void enter(const Turn& turn, const StepRecord& step) noexcept {
    const Batch& batch = turn.batch;
    if (step.fault != Fault::kNone && step.fault != Fault::kOverflow) {
      result.end = ChunkEnd::kError;
      result.take_fault(step);
      result.position = batch.position;
      result.rows = batch.rows;
      // A rank may compute a batch in parts (begin_part), and the fault's row is then one of a part.
      if (result.row >= 0) result.row += step.first_sample - turn.given.first_sample;
      const bool known = result.row >= 0 && result.row < batch.rows;
      if (known && batch.samples != nullptr) result.sample = batch.samples[result.row];
      return;
    }
    ++steps;
    ++totals.steps;
    totals.last_loss = step.loss_weight == 0 ? 0 : step.loss_sum / step.loss_weight;  // no weight, no loss
    // A batch whose loss is not finite, which its scale excuses, is in no mean.
    const bool counts = step.counts();
    if (counts) {
      totals.samples += std::max<int64_t>(batch.rows, 0);
      totals.loss_sum += step.loss_sum;
      totals.loss_weight += step.loss_weight;
      totals.correct += step.correct;
    }
    if (!options.train) return;
    if (state.pending == 0) state.before_group = state.sums;
    if (counts) {
      state.sums.loss_sum += step.loss_sum;
      state.sums.loss_weight += step.loss_weight;
      state.sums.correct += step.correct;
      state.sums.samples += options.ranks != nullptr ? options.ranks->rows()
                            : batch.whole_rows > 0   ? batch.whole_rows
                                                     : batch.rows;
    }
    ++state.draws;
    ++state.pending;
    state.pending_weight += step.loss_weight;
    if (turn.given.moment & static_cast<uint8_t>(When::kLast)) updated(step);
  }

  // An update is done, or skipped.
  void updated(const StepRecord& step) noexcept {
    state.pending = 0;
    state.pending_weight = 0;
    state.adapt_scale(step.fault != Fault::kOverflow);
    if (step.fault == Fault::kOverflow) return;
    ++state.updates;
    ++updates;
    ++totals.updates;
    totals.gradient_norm = step.gradient_norm;
  }

  // Converts ticks to seconds; the steady clock's time of the whole run gives the factor.
  void close(Clock::duration span, uint64_t span_ticks, uint64_t data_ticks) noexcept {
    if (span_ticks == 0) return;
    const double unit = std::chrono::duration<double>(span).count() / static_cast<double>(span_ticks);
    totals.data_seconds += static_cast<double>(data_ticks) * unit;
    totals.compute_seconds += static_cast<double>(ticks[StepPart::kCompute]) * unit;
    totals.update_seconds += static_cast<double>(ticks[StepPart::kUpdate]) * unit;
    totals.reduction_seconds += static_cast<double>(ticks[StepPart::kReduction]) * unit;
  }
};

struct Loop {
  const ProgramSet& programs;
  Feed& feed;
  Ledger ledger;
  Turn turns[2];
  uint64_t data_ticks = 0;

  bool end(Turn* turn, ChunkEnd why) noexcept {
    ledger.result.end = why;
    turn->stop = true;
    return false;
  }

  // Decides whether there is another step, and prepares it. Lane 0 calls this.
  bool prepare(Turn* turn) noexcept {
    const ChunkOptions& options = ledger.options;
    turn->stop = false;
    if (ledger.result.fault != Fault::kNone) return end(turn, ChunkEnd::kError);
    if (options.most_steps >= 0 && ledger.steps >= options.most_steps) return end(turn, ChunkEnd::kSteps);
    if (options.train && ledger.updates >= options.rate_count) return end(turn, ChunkEnd::kRates);
    if (ledger.steps > 0 && Clock::now() >= options.deadline) return end(turn, ChunkEnd::kTime);
    const ChunkEnd got = feed.fetch(options.deadline, &ledger.result.status);
    if (got != ChunkEnd::kSteps) return end(turn, got);
    turn->executor = programs.find(feed.waiting.rows);
    if (turn->executor == nullptr) {
      ledger.result.rows = feed.waiting.rows;
      return end(turn, ChunkEnd::kProgram);
    }
    turn->batch = feed.waiting;
    feed.has_waiting = false;
    ledger.tell(turn);
    return true;
  }

  // The loop exists twice, with and without the trace, so that a trace that is off costs nothing.
  template <bool kTraced>
  void run(const Lane& lane) noexcept {
    const bool first = lane.index == 0;
    for (uint32_t number = 0;; ++number) {
      Turn& turn = turns[number & 1];
      const uint64_t start = first ? ticks() : 0;
      const int64_t begin = kTraced ? monotonic_ns() : 0;
      if (first) prepare(&turn);
      if constexpr (kTraced) {
        if (first) trace_record("next batch", begin, monotonic_ns());
      }
      lane.barrier();
      const int64_t known = kTraced ? monotonic_ns() : 0;
      if constexpr (kTraced) {
        if (!first) trace_record("wait for lane 0", begin, known);
      }
      // All lanes have now left the previous step, so lane 0 may release its batch and change the executors' input pointers.
      if (first && number > 0) feed.source->release(turns[(number - 1) & 1].batch);
      if (turn.stop) return;
      if (first) turn.executor->bind(turn.batch);
      feed.source->fill(lane, turn.batch);
      if constexpr (kTraced) trace_record("gather", known, monotonic_ns());
      lane.barrier();
      if (first) data_ticks += ticks() - start;
      const StepRecord& step = turn.executor->run(lane, turn.given, first ? &ledger.ticks : nullptr);
      if constexpr (kTraced) {
        if (first) trace_record("step", begin, monotonic_ns(), ledger.state.updates);
      }
      if (first) ledger.enter(turn, step);
    }
  }
};

}  // namespace

ChunkResult run_chunk(Team& team, int lanes, const ProgramSet& programs, Feed* feed, const ChunkOptions& options,
                      TrainState* state, Totals* totals) noexcept {
  Loop loop{programs, *feed, {options, *state, *totals, {}, 0, 0, {}}, {}, 0};
  const Clock::time_point start = Clock::now();
  const uint64_t start_ticks = ticks();
  if (trace_is_on.load(std::memory_order_relaxed)) {
    team.run(lanes, [&loop](const Lane& lane) noexcept { loop.run<true>(lane); });
  } else {
    team.run(lanes, [&loop](const Lane& lane) noexcept { loop.run<false>(lane); });
  }
  loop.ledger.close(Clock::now() - start, ticks() - start_ticks, loop.data_ticks);
  return loop.ledger.result;
}

ChunkResult run_step(Team& team, Executor& executor, const Batch& batch, const ChunkOptions& options, TrainState* state,
                     Totals* totals) noexcept {
  Ledger ledger{options, *state, *totals, {}, 0, 0, {}};
  ledger.result.end = ChunkEnd::kSteps;
  Turn turn;
  turn.batch = batch;
  ledger.tell(&turn);
  executor.bind(batch);
  const Clock::time_point start = Clock::now();
  const uint64_t start_ticks = ticks();
  team.run(executor.lanes(), [&](const Lane& lane) noexcept {
    const StepRecord& step = executor.run(lane, turn.given, lane.index == 0 ? &ledger.ticks : nullptr);
    if (lane.index == 0) ledger.enter(turn, step);
  });
  ledger.close(Clock::now() - start, ticks() - start_ticks, 0);
  return ledger.result;
}

ChunkResult flush_updates(Team& team, Executor& executor, const ChunkOptions& options, TrainState* state,
                          Totals* totals) noexcept {
  if (state->pending == 0 || options.rate_count < 1) return {};
  Ledger ledger{options, *state, *totals, {}, 0, 0, {}};
  Turn turn;
  ledger.tell(&turn);
  turn.given.total_weight = state->pending_weight;
  turn.given.moment = static_cast<uint8_t>(When::kLast);
  team.run(executor.lanes(), [&](const Lane& lane) noexcept {
    const StepRecord& step = executor.run(lane, turn.given, nullptr);
    if (lane.index != 0) return;
    if (step.fault == Fault::kNone || step.fault == Fault::kOverflow) return ledger.updated(step);
    ledger.result.end = ChunkEnd::kError;
    ledger.result.fault = step.fault;
  });
  return ledger.result;
}

}  // namespace gradring
