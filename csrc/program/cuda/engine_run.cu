// The runs of an engine: chunks, flushes and predictions.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/patience.h"
#include "program/cuda/device_fields.h"
#include "program/cuda/engine.h"
#include "program/cuda/plant.h"
#include "runtime/status.h"

namespace gradring {

namespace {

using Seconds = std::chrono::duration<double>;

constexpr const char* kWho = "step";
constexpr double kMostAheadSeconds = 0.2;   // how much work may wait on the device
constexpr int64_t kWorthTheTeam = 1 << 20;  // a batch of so many bytes is gathered by all lanes

void check(int code) {
  if (code != 0) cuda::throw_failure(kWho, code);
}

void wait_for(const cuda::Event& event) { cuda::wait_for(kWho, event); }

}  // namespace

ChunkOptions DeviceEngine::chunk_options() const noexcept {
  ChunkOptions options;
  options.accumulate = options_.accumulate;
  options.seed = options_.seed;
  options.check_finite = options_.check_finite;
  return options;
}

void DeviceEngine::require_known() const {
  if (!lost_.empty()) throw Error(Code::kUnavailable, lost_);
}

// Refuses everything from now on, because an error has left it unknown which steps the device has done.
void DeviceEngine::lose(const Error& error) {
  lost_ =
      std::string(error.what()) +
      "; the counts of the steps on the device are not known, so this trainer cannot go on: make a new one, and load "
      "a checkpoint";
}

// Orders the engine's streams behind the caller's; that of the copies only if it must be.
void DeviceEngine::order_behind(void* caller, bool copies) {
  cuda::require_no_capture(kWho, caller);
  check(cuda::record(entry_, caller));
  if (planted(Plant::kNoEntryWait)) return;
  check(cuda::wait(compute_.get(), entry_));
  if (copies) check(cuda::wait(copies_.get(), entry_));
}

void DeviceEngine::trace(bool on) {
  settle();
  if (!on) return row_.reset();
  const cuda::OnDevice on_device(kWho, device_.device);
  base_ = cuda::make_clock(kWho);
  row_ = std::make_unique<TraceRow>(("cuda:" + std::to_string(device_.device)).c_str());
}

// Records a step that is done. Returns a code.
int DeviceEngine::show(const Lap& done) {
  double begin = 0, end = 0;
  int code = cuda::elapsed(base_, done.began, &begin);
  if (code == 0) code = cuda::elapsed(base_, done.ended, &end);
  if (code != 0) return code;
  const auto at = [this](double seconds) { return base_ns_ + static_cast<int64_t>(seconds * 1e9); };
  row_->record(done.shown, at(begin), at(end));
  return done.executor->show(done.marks, base_, base_ns_, row_.get());
}

// Begins a run, and gives the device its numbers.
void DeviceEngine::begin(const ChunkOptions& options, const Totals& totals, StepLoss* losses, void* caller) {
  order_behind(caller, true);
  run_steps_ = laps_read_ = 0;
  lap_seconds_ = 0;
  if (row_) {  // two clocks have one moment in common: that in which the host sees this event
    check(cuda::record(base_, compute_.get()));
    wait_for(base_);
    base_ns_ = monotonic_ns();
  }
  DeviceLedger given;
  given.losses = losses;
  given.seed = options.seed;
  given.train = options.train, given.check_finite = options.check_finite, given.need_weight = options.need_weight;
  given.state = state_;
  given.totals = totals;
  std::memcpy(report_.get(), &given, sizeof given);
  check(cuda::copy(cuda::Way::kToDevice, ledger_memory_.data(), report_.get(), sizeof given, compute_.get()));
}

// Waits for all that was queued, and takes counts, sums and the fault from the device.
void DeviceEngine::collect(Totals* totals, ChunkResult* result, bool train) {
  check(cuda::record(entry_, copies_.get()));
  check(cuda::wait(compute_.get(), entry_));
  check(cuda::copy(cuda::Way::kToHost, report_.get(), ledger_memory_.data(), sizeof(DeviceLedger), compute_.get()));
  check(cuda::record(reported_, compute_.get()));
  if (!planted(Plant::kReportReadTooEarly)) {
    wait_for(reported_);
    read_laps(run_steps_);
  }
  DeviceLedger found;
  std::memcpy(&found, report_.get(), sizeof found);
  // No program on a device calls back: this is a rehearsal whose end could not be queued.
  if (found.record.fault == Fault::kCallback) found.record.fault = found.held;
  if (train) state_ = found.state;
  *totals = found.totals;
  if (found.record.fault == Fault::kNone) return;
  result->end = ChunkEnd::kError;
  result->take_fault(found.record);
  result->position = found.fault_position;
  result->rows = found.fault_rows;
  result->sample = found.fault_sample;
}

void DeviceEngine::end(void* caller) {
  check(cuda::record(exit_, compute_.get()));
  check(cuda::wait(caller, exit_));
}

// What a chunk, a flush and a prediction share. `body` queues steps; it may throw between two steps.
template <class Body>
ChunkResult DeviceEngine::run(const ChunkOptions& options, Totals* totals, void* caller, Body&& body) {
  const cuda::OnDevice on(kWho, device_.device);
  const double data_before = totals->data_seconds, compute_before = totals->compute_seconds;
  double data_seconds = 0;
  ChunkResult result;
  begin(options, *totals, nullptr, caller);
  try {
    body(&result, &data_seconds);
  } catch (const Error& error) {
    // What was queued before the failure is whole steps: count them.
    try {
      collect(totals, &result, options.train);
      end(caller);
    } catch (const Error&) {
      lose(error);
    }
    throw;
  }
  try {
    collect(totals, &result, options.train);
  } catch (const Error& error) {
    lose(error);
    throw;
  }
  end(caller);
  totals->data_seconds = data_before + data_seconds;
  totals->compute_seconds = compute_before + lap_seconds_;
  return result;
}

// Adds up the times of the run's first `done` steps, which are done.
void DeviceEngine::read_laps(int64_t done) {
  for (; laps_read_ < done; ++laps_read_) {
    const Lap& each = lap(laps_read_);
    check(cuda::elapsed(each.began, each.ended, &last_lap_));
    each.executor->set_seconds(last_lap_);
    lap_seconds_ += last_lap_;
    if (each.shown && row_) check(show(each));
  }
}

// Keeps the host from queueing more than kMostAheadSeconds of work. Without this, two slots and their copies allow four
// steps ahead. Until a program's first step is done, the host does not know how long a step takes, so it queues one at a time.
void DeviceEngine::keep_near(const DeviceExecutor& executor) {
  const double each = std::max(executor.seconds(), last_lap_);
  if (executor.seconds() >= 0 && each * kLaps <= kMostAheadSeconds) return;
  const int64_t back = executor.seconds() >= 0 && each * kSlots <= kMostAheadSeconds ? kSlots : 1;
  if (run_steps_ < back) return;
  wait_for(lap(run_steps_ - back).ended);
  read_laps(run_steps_ - back + 1);
}

// Writes a batch into the pinned half of a slot; of one that lies on the device, only the numbers about it.
void DeviceEngine::fill(const Batch& batch, BatchSource* source, const DeviceExecutor& executor, const Slot& slot) {
  const TraceSpan span("gather");
  const SlotLayout& layout = executor.layout();
  if (team_.lanes() > 1 && static_cast<int64_t>(layout.input_bytes) >= kWorthTheTeam) {
    team_.run(team_.lanes(), [&](const Lane& lane) noexcept { source->fill(lane, batch); });
  } else {
    source->fill(Lane{&team_, 0, 1}, batch);
  }
  auto* const header = reinterpret_cast<StepHeader*>(slot.host);
  header->position = batch.position, header->whole_rows = batch.whole_rows;
  header->has_samples = batch.samples != nullptr;
  if (batch.samples) {
    std::memcpy(slot.host + layout.samples, batch.samples, static_cast<size_t>(batch.rows) * sizeof(int64_t));
  }
  if (is_on_device(source)) return;
  for (size_t i = 0; i < layout.fields.size(); ++i) {
    if (layout.field_bytes[i] > 0) std::memcpy(slot.host + layout.fields[i], batch.fields[i], layout.field_bytes[i]);
  }
}

// With `result_bytes`, the output comes back into the slot.
void DeviceEngine::queue_step(DeviceExecutor& executor, const Slot& slot, uint8_t moment, StepKind kind,
                              const Batch* on_device, size_t result_bytes) {
  if (run_steps_ >= kSlots && !planted(Plant::kSlotReused)) {
    check(cuda::wait(copies_.get(), lap(run_steps_ - kSlots).ended));
  }
  const SlotLayout& layout = executor.layout();
  const bool own = on_device == nullptr || layout.fields.empty();
  const size_t bytes = own ? layout.input_bytes : layout.fields[0];
  check(cuda::copy(cuda::Way::kToDevice, slot.device, slot.host, bytes, copies_.get()));
  for (size_t i = 0; !own && i < layout.fields.size(); ++i) {
    if (layout.field_bytes[i] == 0) continue;
    check(cuda::copy(cuda::Way::kOnDevice, slot.device + layout.fields[i], on_device->fields[i], layout.field_bytes[i],
                     copies_.get()));
  }
  check(cuda::record(slot.copied, copies_.get()));
  if (!planted(Plant::kNoArrivalWait)) {
    const int code = cuda::wait(compute_.get(), slot.copied);
    if (!planted(Plant::kErrorSwallowed)) check(code);
  }
  Lap& now = lap(run_steps_);
  now.executor = &executor;
  now.shown = !row_ ? nullptr : kind == StepKind::kFlush ? "flush" : "step";
  check(cuda::record(now.began, compute_.get()));
  if (now.shown != nullptr) {
    executor.queue_marked(slot.device, moment, kind, queue(), &now.marks);
  } else if (device_.graphs) {
    executor.launch(slot.device, moment, kind, queue());
  } else {
    executor.queue(slot.device, moment, kind, queue());
  }
  if (result_bytes > 0) {
    check(cuda::copy(cuda::Way::kToHost, slot.host + layout.output, slot.device + layout.output, result_bytes,
                     compute_.get()));
  }
  check(cuda::record(now.ended, compute_.get()));
  ++run_steps_;
}

ChunkResult DeviceEngine::chunk(bool train, Feed& feed, const ChunkOptions& options, Totals* totals, void* caller) {
  settle();
  require_known();
  if (train) {
    const cuda::OnDevice on(kWho, device_.device);
    grow_rates(options.rate_columns);
  }
  return run(options, totals, caller, [&](ChunkResult* result, double* data_seconds) {
    int64_t steps = 0, updates = 0, pending = state_.pending;
    const auto ends = [result](ChunkEnd why) { result->end = why; };
    for (;; ++steps) {
      if (options.most_steps >= 0 && steps >= options.most_steps) return ends(ChunkEnd::kSteps);
      if (train && updates >= options.rate_count) return ends(ChunkEnd::kRates);
      const Clock::time_point now = Clock::now();
      if (steps > 0 && now >= options.deadline) return ends(ChunkEnd::kTime);
      ChunkEnd got = ChunkEnd::kSteps;
      {
        const TraceSpan span("next batch");
        got = feed.fetch(options.deadline, &result->status);
      }
      if (got != ChunkEnd::kSteps) return ends(got);
      DeviceExecutor* const executor = find(mode_of(train, options.weighted), feed.waiting.rows);
      if (executor == nullptr) {
        result->rows = feed.waiting.rows;
        return ends(ChunkEnd::kProgram);
      }
      const double waited = Seconds(Clock::now() - now).count();
      Slot& slot = slots_[steps % kSlots];
      if (!planted(Plant::kRefillBeforeCopy)) {
        wait_for(slot.copied);  // the pinned half is free again
        read_laps(steps - kLaps + 1);
      }
      keep_near(*executor);
      const Clock::time_point filling = Clock::now();
      const Batch batch = feed.waiting;
      feed.has_waiting = false;
      fill(batch, feed.source, *executor, slot);
      feed.source->release(batch);
      *data_seconds += waited + Seconds(Clock::now() - filling).count();
      const bool last = pending + 1 >= options.accumulate;
      const uint8_t moment = train ? moment_of(pending == 0, last) : moment_of(true, true);
      const double* const rates = train ? options.rates + updates * options.rate_columns : nullptr;
      executor->layout().set_rates(slot.host, rates, train ? options.rate_columns : 0);
      queue_step(*executor, slot, moment, StepKind::kBatch, is_on_device(feed.source) ? &batch : nullptr);
      pending = last ? 0 : pending + 1;
      updates += last;
    }
  });
}

ChunkResult DeviceEngine::flush(bool weighted, int64_t rows, const ChunkOptions& options, void* caller) {
  settle();
  require_known();
  if (state_.pending == 0 || options.rate_count < 1) return {};
  DeviceExecutor* const executor = find(mode_of(true, weighted), rows);
  if (executor == nullptr) throw Error(Code::kInternal, "[step] there is no program for the gradients that wait");
  {
    const cuda::OnDevice on(kWho, device_.device);
    grow_rates(options.rate_columns);
  }
  return run(options, &totals_, caller, [&](ChunkResult* result, double*) {
    result->end = ChunkEnd::kSteps;
    Slot& slot = slots_[0];
    wait_for(slot.copied);
    *reinterpret_cast<StepHeader*>(slot.host) = StepHeader{};
    executor->layout().set_rates(slot.host, options.rates, options.rate_columns);
    queue_step(*executor, slot, static_cast<uint8_t>(When::kLast), StepKind::kFlush, nullptr);
  });
}

// Copies the output of an earlier batch, which has come into the pinned half of the slot, to its place.
void DeviceEngine::deliver(Slot* slot, const cuda::Event& come) {
  if (slot->out == nullptr) return;
  wait_for(come);
  std::memcpy(std::exchange(slot->out, nullptr), slot->from, slot->out_bytes);
}

ChunkResult DeviceEngine::predict(Feed& feed, std::byte* out, int64_t row_bytes, void* caller) {
  settle();
  require_known();
  ChunkOptions options = chunk_options();
  options.train = false;
  Totals totals;
  for (Slot& slot : slots_) slot.out = nullptr;
  return run(options, &totals, caller, [&](ChunkResult* result, double*) {
    result->end = ChunkEnd::kEpoch;
    for (int64_t steps = 0;; ++steps) {
      if (!feed.has_waiting) result->status = feed.source->next(&feed.waiting, kNoDeadline);
      const Batch batch = feed.waiting;
      result->position = batch.position;
      result->rows = batch.rows;
      if (!result->status.ok()) {
        result->end = ChunkEnd::kError;
        break;
      }
      feed.has_waiting = true;
      if (batch.rows == 0) break;
      DeviceExecutor* const executor = find(Mode::kPredict, batch.rows);
      if (executor == nullptr) {
        result->end = ChunkEnd::kProgram;
        break;
      }
      Slot& slot = slots_[steps % kSlots];
      deliver(&slot, lap(std::max<int64_t>(steps - kSlots, 0)).ended);
      wait_for(slot.copied);
      read_laps(steps - kSlots + 1);
      fill(batch, feed.source, *executor, slot);
      feed.has_waiting = false;
      feed.source->release(batch);
      executor->layout().set_rates(slot.host, nullptr, 0);
      const auto bytes = static_cast<size_t>(batch.rows * row_bytes);
      queue_step(*executor, slot, moment_of(true, true), StepKind::kBatch, is_on_device(feed.source) ? &batch : nullptr,
                 bytes);
      slot.from = slot.host + executor->layout().output;
      slot.out = out + batch.position * row_bytes, slot.out_bytes = bytes;
    }
    for (Slot& slot : slots_) deliver(&slot, lap(std::max<int64_t>(run_steps_ - 1, 0)).ended);
  });
}

}  // namespace gradring
