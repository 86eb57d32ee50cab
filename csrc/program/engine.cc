#include "program/engine.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "runtime/forks.h"
#include "runtime/ticks.h"

namespace gradring {

Engine::Engine(Arenas arenas, const EngineOptions& options)
    : options_(options), team_(options.lanes), arenas_(std::move(arenas)), born_in_fork_(forks_so_far()) {}

// Allocates memory for an arena of temps. Programs that used a smaller one now use this one.
void Engine::reserve(const Arena& temps) {
  const Arenas::Memory* const known = arenas_.find(temps.name);
  if (temps.bytes < 0 || (known != nullptr && (known->kind != BufferKind::kTemp || known->bytes >= temps.bytes)))
    return;
  const auto memory = std::make_shared<AlignedArena>(static_cast<size_t>(std::max<int64_t>(temps.bytes, 1)));
  arenas_.set(temps.name, BufferKind::kTemp, memory->data(), temps.bytes, memory);
  for (const auto& executor : executors_) executor->place_temps(temps.name, memory->data());
}

Executor& Engine::add(Mode mode, int64_t rows, const Program& program) {
  if (program.fields < 0 || program.fields > Batch::kMaxFields) {
    throw Error(Code::kInvalidArgument, "[program] the batch has " + std::to_string(program.fields) +
                                            " fields: must be at most " + std::to_string(Batch::kMaxFields));
  }
  const int most = mode == Mode::kPredict ? 1 : 0;  // only predict has an output
  if (program.outputs < 0 || program.outputs > most) {
    throw Error(Code::kInvalidArgument, "[program] has " + std::to_string(program.outputs) +
                                            " outputs: must be at most " + std::to_string(most) + " in this mode");
  }
  for (const Arena& arena : program.arenas)
    if (arena.kind == BufferKind::kTemp) reserve(arena);
  executors_.push_back(std::make_unique<Executor>(program, arenas_, team_));
  Executor& added = *executors_.back();
  added.set_rows(rows);
  added.trace(traced_);
  sets_[static_cast<size_t>(mode)].entries.push_back({rows, &added});
  return added;
}

void Engine::clear() noexcept {
  for (ProgramSet& set : sets_) set.entries.clear();
  executors_.clear();
}

void Engine::set_arenas(Arenas arenas) noexcept {
  clear();
  arenas_ = std::move(arenas);
}

void Engine::trace(bool on) {
  traced_ = on;
  for (const auto& executor : executors_) executor->trace(on);
}

ChunkOptions Engine::chunk_options() const noexcept {
  ChunkOptions options;
  options.accumulate = options_.accumulate;
  options.seed = options_.seed;
  options.check_finite = options_.check_finite;
  return options;
}

ChunkResult Engine::step(Executor& executor, const Batch& batch, const double* rates, int64_t rate_columns,
                         const RankSteps* ranks) noexcept {
  ChunkOptions options = chunk_options();
  options.need_weight = ranks == nullptr;
  options.ranks = ranks;
  options.rates = rates;
  options.rate_count = 1;
  options.rate_columns = rate_columns;
  if (!executor.on_trial()) return run_step(team_, executor, batch, options, &state_, &totals_);
  const uint64_t start = ticks();
  const ChunkResult result = run_step(team_, executor, batch, options, &state_, &totals_);
  executor.note(ticks() - start);
  return result;
}

ChunkResult Engine::chunk(bool train, Feed& feed, ChunkOptions options, Totals* totals) noexcept {
  const ProgramSet& set = programs(mode_of(train, options.weighted));
  TrainState unchanged = state_;
  TrainState* state = train ? &state_ : &unchanged;
  Executor* executor = feed.has_waiting ? set.find(feed.waiting.rows) : nullptr;
  if (executor == nullptr) executor = set.entries.empty() ? nullptr : set.entries.front().executor;
  if (executor == nullptr) return run_chunk(team_, 1, set, &feed, options, state, totals);
  const int64_t rows = executor->rows();
  while (executor->on_trial() && options.most_steps != 0) {
    ChunkOptions one = options;
    one.most_steps = 1;
    const Totals before = *totals;
    const uint64_t start = ticks();
    const ChunkResult result = run_chunk(team_, executor->lanes(), set, &feed, one, state, totals);
    if (totals->samples - before.samples == rows) executor->note(ticks() - start);
    if (result.end != ChunkEnd::kSteps) return result;
    const int64_t updates = totals->updates - before.updates;
    options.rates += updates * options.rate_columns;
    options.rate_count -= updates;
    if (options.most_steps > 0) --options.most_steps;
    if (Clock::now() >= options.deadline) {
      ChunkResult late;
      late.end = ChunkEnd::kTime;
      return late;
    }
  }
  return run_chunk(team_, executor->lanes(), set, &feed, options, state, totals);
}

ChunkResult Engine::predict(Feed& feed, std::byte* out, int64_t row_bytes) noexcept {
  ChunkResult result;
  result.end = ChunkEnd::kEpoch;
  for (;;) {
    if (!feed.has_waiting) result.status = feed.source->next(&feed.waiting, kNoDeadline);
    const Batch batch = feed.waiting;
    result.position = batch.position;
    result.rows = batch.rows;
    if (!result.status.ok()) {
      result.end = ChunkEnd::kError;
      return result;
    }
    feed.has_waiting = true;
    if (batch.rows == 0) return result;
    Executor* executor = programs(Mode::kPredict).find(batch.rows);
    if (executor == nullptr) {
      result.end = ChunkEnd::kProgram;
      return result;
    }
    executor->bind(batch);
    executor->bind_output(out + batch.position * row_bytes);
    const uint64_t start = ticks();
    team_.run(executor->lanes(), [&](const Lane& lane) noexcept {
      feed.source->fill(lane, batch);
      lane.barrier();
      const StepRecord& step = executor->run(lane, StepRecord{}, nullptr);
      if (lane.index == 0) result.take_fault(step);
    });
    if (executor->on_trial()) executor->note(ticks() - start);
    feed.has_waiting = false;
    feed.source->release(batch);
    if (result.fault != Fault::kNone) {
      result.end = ChunkEnd::kError;
      return result;
    }
  }
}

const int64_t* Engine::row_numbers(int64_t rows) {
  if (static_cast<int64_t>(row_numbers_.size()) < rows) {
    row_numbers_.resize(static_cast<size_t>(rows));
    std::iota(row_numbers_.begin(), row_numbers_.end(), 0);
  }
  return row_numbers_.data();
}

Engine::Entry Engine::enter(bool writes) noexcept {
  // A forked child shares the parameters with its parent, and the two processes must not both update them.
  if (writes && born_in_fork_ != forks_so_far()) return Entry::kForked;
  return busy_.exchange(true, std::memory_order_acquire) ? Entry::kBusy : Entry::kEntered;
}

}  // namespace gradring
