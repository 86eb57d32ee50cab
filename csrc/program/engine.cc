#include "program/engine.h"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <utility>

#include "runtime/ticks.h"

namespace gradring {

namespace {

std::atomic<uint64_t> forks{0};

void count_forks_in_children() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); }); });
}

}  // namespace

Engine::Engine(const Arenas& arenas, const EngineOptions& options)
    : options_(options), team_(options.lanes), arenas_(arenas), born_in_fork_(0) {
  count_forks_in_children();
  born_in_fork_ = forks.load(std::memory_order_relaxed);
}

Executor& Engine::add(Mode mode, int64_t rows, Program program, int64_t temp_bytes, int fields) {
  if (!temp_ || static_cast<int64_t>(temp_->size()) < temp_bytes) {
    temp_ = std::make_unique<AlignedArena>(static_cast<size_t>(temp_bytes));
    arenas_.set(BufferKind::kTemp, temp_->data(), temp_bytes);
    for (const auto& executor : executors_) executor->place(arenas_);
  }
  arenas_.set(BufferKind::kInput, nullptr, fields);
  arenas_.set(BufferKind::kOutput, nullptr, 1);
  executors_.push_back(std::make_unique<Executor>(std::move(program), arenas_, team_));
  Executor& added = *executors_.back();
  sets_[static_cast<size_t>(mode)].entries.push_back({rows, &added});
  return added;
}

void Engine::clear() noexcept {
  for (ProgramSet& set : sets_) set.entries.clear();
  executors_.clear();
}

void Engine::tune(Executor& executor, const Batch& batch) {
  // Trial runs would add to gradients that wait, and call the user's functions more often than they expect.
  if (team_.lanes() == 1 || state_.pending > 0) return;
  for (const Instruction& instruction : executor.program().instructions) {
    if (instruction.op->name == "callback") return;
  }
  StepInputs inputs;
  inputs.batch = &batch;
  inputs.check_finite = false;
  inputs.apply = false;
  executor.bind(batch);
  size_t output_bytes = 0;
  for (const Buffer& buffer : executor.program().buffers) {
    if (buffer.kind == BufferKind::kOutput) {
      output_bytes = std::max(output_bytes, static_cast<size_t>(buffer.elements) * size_of(buffer.dtype));
    }
  }
  const AlignedArena output(output_bytes);
  executor.bind_output(output.data());
  const auto time_of = [&](int lanes) {
    // The best of a few runs, for at most a few milliseconds: a neighbour's burst must not decide.
    auto best = Clock::duration::max();
    const Deadline until = deadline_in(std::chrono::milliseconds(5));
    for (int i = 0; i < 12; ++i) {
      const auto start = Clock::now();
      if (i > 2 && start > until) break;
      team_.run(lanes, [&](const Lane& lane) noexcept {
        Frame frame;
        frame.inputs = &inputs;
        executor.run(lane, &frame, nullptr);
      });
      const auto took = Clock::now() - start;
      if (i > 0 && took < best) best = took;
    }
    return best;
  };
  const auto alone = time_of(1);
  executor.set_lanes(alone <= time_of(team_.lanes()) ? 1 : team_.lanes());
}

void Engine::add_totals(const Totals& more) noexcept {
  totals_.loss_sum += more.loss_sum;
  totals_.loss_weight += more.loss_weight;
  totals_.correct += more.correct;
  totals_.samples += more.samples;
  totals_.steps += more.steps;
  totals_.updates += more.updates;
  totals_.last_loss = more.last_loss;
  totals_.gradient_norm = more.gradient_norm;
  totals_.data_seconds += more.data_seconds;
  totals_.compute_seconds += more.compute_seconds;
  totals_.update_seconds += more.update_seconds;
}

ChunkOptions Engine::chunk_options() const noexcept {
  ChunkOptions options;
  options.accumulate = options_.accumulate;
  options.seed = options_.seed;
  options.check_finite = options_.check_finite;
  return options;
}

ChunkResult Engine::step(Executor& executor, const Batch& batch, double rate) noexcept {
  ChunkOptions options = chunk_options();
  options.rates = &rate;
  options.rate_count = 1;
  return run_step(team_, executor, batch, options, &state_, &totals_);
}

std::vector<Engine::Work> Engine::profile(Executor& executor, const Batch& batch, double rate, int steps) {
  const size_t count = executor.program().instructions.size() * static_cast<size_t>(executor.lanes());
  std::vector<Span> spans(count * static_cast<size_t>(steps));
  const Clock::time_point start = Clock::now();
  const uint64_t start_ticks = ticks();
  for (int i = 0; i < steps; ++i) {
    executor.watch(spans.data() + count * static_cast<size_t>(i));
    step(executor, batch, rate);
  }
  executor.watch(nullptr);
  const double unit =
      std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(ticks() - start_ticks);
  std::vector<Work> result(count);
  std::vector<uint64_t> values(static_cast<size_t>(steps));
  const auto median_of = [&](auto&& value_of) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = value_of(i);
    std::nth_element(values.begin(), values.begin() + steps / 2, values.end());
    return static_cast<double>(values[values.size() / 2]) * unit;
  };
  for (size_t k = 0; k < count; ++k) {
    const auto at = [&](size_t i) -> const Span& { return spans[i * count + k]; };
    result[k].wait = median_of([&](size_t i) { return at(i).begin - at(i).ready; });
    result[k].work = median_of([&](size_t i) { return at(i).end - at(i).begin; });
  }
  return result;
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
    StepInputs inputs;
    inputs.batch = &batch;
    inputs.apply = false;
    team_.run(executor->lanes(), [&](const Lane& lane) noexcept {
      feed.source->fill(lane, batch);
      lane.barrier();
      Frame frame;
      frame.inputs = &inputs;
      executor->run(lane, &frame, nullptr);
      if (lane.index == 0) result.fault = frame.fault;
    });
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
  // Parameters are shared with the parent after a fork: two processes must not update them unknowingly.
  if (writes && born_in_fork_ != forks.load(std::memory_order_relaxed)) return Entry::kForked;
  return busy_.exchange(true, std::memory_order_acquire) ? Entry::kBusy : Entry::kEntered;
}

}  // namespace gradring
