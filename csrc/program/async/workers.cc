#include "program/async/workers.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

namespace gradring {

// A worker: its engine, the copy of the batch that it computes on, and what it has counted in this round.
struct Workers::Seat {
  std::unique_ptr<Engine> engine;
  std::shared_ptr<SharedView> view;
  std::unique_ptr<AlignedArena> fields[Batch::kMaxFields];
  int64_t row_bytes[Batch::kMaxFields] = {};
  std::vector<int64_t> samples;

  Batch batch;
  int64_t number = 0;  // of the batch, in this round
  bool busy = false;   // it computes on a batch
  int64_t others = 0;  // how many updates may come between its snapshot and its push, as far as is known
  uint64_t version = 0;

  TrainState state;
  Totals totals;
};

// A run of steps, from the call of `chunk` to its end.
struct Workers::Round {
  Feed& feed;
  const ChunkOptions& options;
  const TrainState& before;
  Mode mode;
  Lock claims;
  Signal ended;
  bool closed = false;  // there are no more batches, for the reason in `result`
  ChunkResult result;
  int64_t begun = 0;
  int64_t done = 0;  // how many batches have ended without a fault
  int64_t failed = -1;
  int64_t last = -1;  // the number of the last batch that has ended
  double last_loss = 0;
  double gradient_norm = 0;
};

namespace {

const Arenas::Memory& parameters_in(const std::vector<Arenas::Memory>& arenas) {
  const auto is_param = [](const Arenas::Memory& memory) { return memory.kind == BufferKind::kParam; };
  const auto found = std::find_if(arenas.begin(), arenas.end(), is_param);
  if (found == arenas.end() || std::count_if(arenas.begin(), arenas.end(), is_param) != 1)
    throw Error(Code::kInvalidArgument, "[Workers] arenas must have exactly one of kind param");
  return *found;
}

// The arenas of one worker. It shares the optimizer's state with the others; the first worker also uses the given gradients.
Arenas arenas_of(const std::vector<Arenas::Memory>& arenas, bool first) {
  Arenas own;
  for (const Arenas::Memory& given : arenas) {
    const bool shared = given.kind == BufferKind::kState || (given.kind == BufferKind::kGrad && first);
    if (shared) {
      own.set(given.name, given.kind, given.data, given.bytes, given.owner);
      continue;
    }
    const auto memory = std::make_shared<AlignedArena>(static_cast<size_t>(given.bytes));
    // Rows that no batch has read yet, and the padding between parameters, have a value too.
    if (given.kind == BufferKind::kParam) std::memcpy(memory->data(), given.data, static_cast<size_t>(given.bytes));
    own.set(given.name, given.kind, memory->data(), given.bytes, memory);
  }
  return own;
}

// One thread at a time writes, so that no read-modify-write is needed.
void count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

Workers::Workers(const std::vector<Arenas::Memory>& arenas, const EngineOptions& options, int workers,
                 int64_t staleness)
    : crew_(workers), bound_(staleness) {
  if (staleness < kNoBound) {
    throw Error(Code::kInvalidArgument,
                "[Workers] staleness is " + std::to_string(staleness) + ": must be at least 0, or -1 for no bound");
  }
  const Arenas::Memory& shared = parameters_in(arenas);
  parameters_ = std::make_shared<SharedParameters>(shared.data, shared.bytes, workers, 16, shared.owner);
  for (int w = 0; w < workers; ++w) {
    seats_.push_back(std::make_unique<Seat>());
    Seat& seat = *seats_.back();
    seat.view = std::make_shared<SharedView>(parameters_, w);
    seat.engine = std::make_unique<Engine>(arenas_of(arenas, w == 0), options);
  }
}

Workers::~Workers() = default;

Engine& Workers::engine(int worker) noexcept { return *seats_[static_cast<size_t>(worker)]->engine; }
const Engine& Workers::engine(int worker) const noexcept { return *seats_[static_cast<size_t>(worker)]->engine; }

std::shared_ptr<SharedView> Workers::view(int worker) {
  if (worker < 0 || worker >= size()) throw Error(Code::kInvalidArgument, "[Workers] there is no such worker");
  return seats_[static_cast<size_t>(worker)]->view;
}

void Workers::set_arenas(const std::vector<Arenas::Memory>& arenas) {
  const Arenas::Memory& shared = parameters_in(arenas);
  std::vector<Arenas> made;
  for (size_t w = 0; w < seats_.size(); ++w) made.push_back(arenas_of(arenas, w == 0));
  parameters_->move_to(shared.data, shared.bytes, shared.owner);
  for (size_t w = 0; w < seats_.size(); ++w) seats_[w]->engine->set_arenas(std::move(made[w]));
}

void Workers::clear() noexcept {
  for (const auto& seat : seats_) {
    seat->engine->clear();
    for (auto& field : seat->fields) field = nullptr;
    seat->samples.clear();
  }
}

Executor& Workers::add(Mode mode, int64_t rows, int worker, const Program& program) {
  if (worker < 0 || worker >= size()) {
    throw Error(Code::kInvalidArgument,
                "[Workers.add] worker is " + std::to_string(worker) + ": must be below " + std::to_string(size()));
  }
  validate(program);  // first, because its numbers become sizes and places here
  Seat& seat = *seats_[static_cast<size_t>(worker)];
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind != BufferKind::kInput || buffer.offset >= Batch::kMaxFields || rows < 1) continue;
    auto& field = seat.fields[buffer.offset];
    seat.row_bytes[buffer.offset] = buffer.bytes / rows;
    if (field == nullptr || static_cast<int64_t>(field->size()) < buffer.bytes)
      field = std::make_unique<AlignedArena>(static_cast<size_t>(buffer.bytes));
  }
  if (static_cast<int64_t>(seat.samples.size()) < rows) seat.samples.resize(static_cast<size_t>(rows));
  return seat.engine->add(mode, rows, program);
}

bool Workers::ready(Mode mode, int64_t rows) const noexcept {
  return std::all_of(seats_.begin(), seats_.end(),
                     [&](const auto& seat) { return seat->engine->programs(mode).find(rows) != nullptr; });
}

// Whether this worker may begin a batch without making any update staler than the bound. Two kinds of updates count: its own,
// which the running batches of other workers may overtake, and theirs, which this batch may overtake.
bool Workers::may_begin(const Seat& seat) const noexcept {
  if (bound_ == kNoBound) return true;
  int64_t running = 0;
  for (const auto& other : seats_) {
    if (other.get() == &seat || !other->busy) continue;
    ++running;
    if (other->others + 1 > bound_) return false;
  }
  return running <= bound_;
}

void Workers::begin(Seat& seat) noexcept {
  seat.others = 0;
  for (const auto& other : seats_) {
    if (other.get() == &seat || !other->busy) continue;
    ++other->others;
    ++seat.others;
  }
  seat.busy = true;
}

// Copies the next batch of the feed into the worker's own memory. Returns false, and closes the round, if there is none.
bool Workers::take(Round& round, Seat& seat) noexcept {
  const ChunkOptions& options = round.options;
  const auto close = [&round](ChunkEnd why) noexcept {
    round.closed = true;
    round.result.end = why;
    return false;
  };
  if (options.most_steps >= 0 && round.begun >= options.most_steps) return close(ChunkEnd::kSteps);
  if (round.begun >= options.rate_count) return close(ChunkEnd::kRates);
  if (round.begun > 0 && Clock::now() >= options.deadline) return close(ChunkEnd::kTime);
  Feed& feed = round.feed;
  const ChunkEnd got = feed.fetch(options.deadline, &round.result.status);
  if (got != ChunkEnd::kSteps) return close(got);
  const Batch given = feed.waiting;
  if (!ready(round.mode, given.rows)) {
    round.result.rows = given.rows;
    return close(ChunkEnd::kProgram);
  }
  feed.source->fill(Lane{}, given);
  seat.batch = given;
  for (int i = 0; i < Batch::kMaxFields; ++i) {
    if (given.fields[i] == nullptr || seat.fields[i] == nullptr) continue;
    std::memcpy(seat.fields[i]->data(), given.fields[i], static_cast<size_t>(given.rows * seat.row_bytes[i]));
    seat.batch.fields[i] = seat.fields[i]->data();
  }
  if (given.samples != nullptr) {
    std::copy(given.samples, given.samples + given.rows, seat.samples.begin());
    seat.batch.samples = seat.samples.data();
  }
  feed.has_waiting = false;
  feed.source->release(given);
  seat.number = round.begun++;
  return true;
}

Workers::Claim Workers::claim(Round& round, Seat& seat) noexcept {
  const std::lock_guard<Lock> hold(round.claims);
  if (round.closed) return Claim::kEnd;
  if (!may_begin(seat)) return Claim::kWait;
  if (!take(round, seat)) return Claim::kEnd;
  begin(seat);
  return Claim::kBatch;
}

void Workers::end(Round& round, Seat& seat, const ChunkResult& result) noexcept {
  const std::lock_guard<Lock> hold(round.claims);
  seat.busy = false;
  if (result.end == ChunkEnd::kError) {
    if (round.failed < 0 || seat.number < round.failed) {
      round.failed = seat.number;
      round.result = result;
    }
    round.closed = true;
  } else {
    const uint64_t stale = parameters_->pushed() - seat.version;
    count(counters_.updates[std::min<uint64_t>(stale, counters_.updates.size() - 1)]);
    if (stale > counters_.most.load(std::memory_order_relaxed)) counters_.most.store(stale, std::memory_order_relaxed);
    ++round.done;
    if (seat.number > round.last) {
      round.last = seat.number;
      round.last_loss = seat.totals.last_loss;
      round.gradient_norm = seat.totals.gradient_norm;
    }
  }
  round.ended.publish(round.ended.value() + 1);
}

void Workers::work(Round& round, Seat& seat) noexcept {
  ChunkOptions options = round.options;
  options.accumulate = 1;
  options.rate_count = 1;
  const TrainState& before = round.before;
  for (;;) {
    const Clock::time_point asked = Clock::now();
    const uint32_t seen = round.ended.value();
    const Claim claimed = claim(round, seat);
    if (claimed == Claim::kWait) {
      {
        const std::lock_guard<Lock> hold(round.claims);
        count(counters_.waits);
      }
      round.ended.wait_change(seen);
    }
    seat.totals.data_seconds += std::chrono::duration<double>(Clock::now() - asked).count();
    if (claimed == Claim::kEnd) return;
    if (claimed == Claim::kWait) continue;
    Executor& executor = *seat.engine->programs(round.mode).find(seat.batch.rows);
    seat.state.updates = before.updates + seat.number;
    seat.state.draws = before.draws + static_cast<uint64_t>(seat.number);
    options.rates = round.options.rates + seat.number * options.rate_columns;
    seat.view->next_push();
    seat.version = parameters_->version();
    const Clock::time_point start = Clock::now();
    const ChunkResult result = run_step(seat.engine->team(), executor, seat.batch, options, &seat.state, &seat.totals);
    if (executor.on_trial()) executor.note(static_cast<uint64_t>((Clock::now() - start).count()));
    end(round, seat, result);
  }
}

Workers::Staleness Workers::staleness() const noexcept {
  Staleness read;
  for (size_t i = 0; i < read.updates.size(); ++i)
    read.updates[i] = counters_.updates[i].load(std::memory_order_relaxed);
  read.most = counters_.most.load(std::memory_order_relaxed);
  read.waits = counters_.waits.load(std::memory_order_relaxed);
  return read;
}

ChunkResult Workers::chunk(Feed& feed, const ChunkOptions& options, TrainState* state, Totals* totals,
                           int64_t* failed) noexcept {
  Round round{feed, options, *state, mode_of(true, options.weighted), {}, Signal(), false, {}, 0, 0, -1, -1, 0, 0};
  for (size_t w = 0; w < seats_.size(); ++w) {
    Seat& seat = *seats_[w];
    seat.state = *state;
    if (w > 0) seat.state.sums = seat.state.before_group = {};
    seat.totals = {};
    seat.busy = false;
  }
  crew_.run(size(), [&](const Lane& lane) noexcept { work(round, *seats_[static_cast<size_t>(lane.index)]); });
  const TrainState before = *state;
  state->sums = {}, state->before_group = {};
  int64_t updates = 0;  // of this run: `totals` may have those of earlier ones
  for (const auto& seat : seats_) {
    const Totals& mine = seat->totals;
    const auto add = [](EpochSums& sum, const EpochSums& more) {
      sum.loss_sum += more.loss_sum, sum.loss_weight += more.loss_weight;
      sum.correct += more.correct, sum.samples += more.samples;
    };
    add(state->sums, seat->state.sums);
    add(state->before_group, seat->state.before_group);
    totals->loss_sum += mine.loss_sum, totals->loss_weight += mine.loss_weight;
    totals->correct += mine.correct, totals->samples += mine.samples;
    totals->steps += mine.steps, totals->updates += mine.updates;
    updates += mine.updates;
    totals->data_seconds += mine.data_seconds / size();
    totals->compute_seconds += mine.compute_seconds / size();
    totals->update_seconds += mine.update_seconds / size();
  }
  if (round.last >= 0) totals->last_loss = round.last_loss, totals->gradient_norm = round.gradient_norm;
  state->updates = before.updates + updates;
  state->draws = before.draws + static_cast<uint64_t>(round.done);
  *failed = round.failed;
  return round.result;
}

}  // namespace gradring
