// Steps that return before the device is done. The ledger of a run stays on the device from step to step. The last node of each step
// writes the loss into the host's memory, so that a loss is read as soon as its own step is done, and as many slots there suffice as
// steps can wait on the device. A step after a fault writes nothing: so the host sees that an earlier one has failed, and then reads
// the ledger, which ends the run.
#include <algorithm>
#include <chrono>
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

void check(int code) {
  if (code != 0) cuda::throw_failure(kWho, code);
}

StepLoss* losses_in(const cuda::PinnedMemory& memory) noexcept { return static_cast<StepLoss*>(memory.get()); }

bool same_run(const ChunkOptions& a, const ChunkOptions& b) noexcept {
  return a.seed == b.seed && a.check_finite == b.check_finite && a.need_weight == b.need_weight &&
         a.accumulate == b.accumulate;
}

}  // namespace

// Takes the losses of the run's first `done` steps, which are done. If one of them has failed, the run ends.
void DeviceEngine::listen(int64_t done) {
  while (ahead_ && ahead_->heard < done) {
    const StepLoss& found = losses_in(losses_)[ahead_->heard % DeviceLedger::kLosses];
    if (found.number != ahead_->heard) {
      if (planted(Plant::kFaultHeardTooLate)) return;
      return settle();
    }
    heard_losses_.push_back(found.loss);
    ++ahead_->heard;
  }
}

void DeviceEngine::settle() {
  if (!ahead_) return;
  const Ahead ahead = *std::exchange(ahead_, std::nullopt);
  Totals totals;
  ChunkResult result;
  try {
    const cuda::OnDevice on(kWho, device_.device);
    collect(&totals, &result, true);
  } catch (const Error& error) {
    lose(error);
    throw;
  }
  for (int64_t step = ahead.heard; step < totals.steps; ++step) {
    heard_losses_.push_back(losses_in(losses_)[step % DeviceLedger::kLosses].loss);
  }
  queued_ = std::max(queued_, ahead.first + totals.steps);  // an error may have come behind the launch of a step
  totals.data_seconds = ahead.data_seconds, totals.compute_seconds = lap_seconds_;
  totals_.add(totals);
  if (result.fault != Fault::kNone) failed_ = FailedStep{ahead.first + totals.steps, result};
}

void DeviceEngine::await(int64_t last) {
  require_known();
  if (!ahead_ || run_steps_ == 0 || last < ahead_->first + ahead_->heard) return;
  const cuda::OnDevice on(kWho, device_.device);
  const int64_t step = std::min(last - ahead_->first, run_steps_ - 1);
  cuda::wait_for(kWho, lap(step).ended);
  read_laps(step + 1);
  listen(step + 1);
}

const std::vector<double>& DeviceEngine::losses(int64_t since) {
  const int64_t drop = std::clamp<int64_t>(since - first_loss_, 0, static_cast<int64_t>(heard_losses_.size()));
  heard_losses_.erase(heard_losses_.begin(), heard_losses_.begin() + drop);
  first_loss_ += drop;
  return heard_losses_;
}

void DeviceEngine::forget_failure() noexcept {
  failed_.reset();
  heard_losses_.clear();
  first_loss_ = queued_;
}

void DeviceEngine::order_behind_steps(void* stream) {
  if (!ahead_) return;
  const cuda::OnDevice on(kWho, device_.device);
  cuda::require_no_capture(kWho, stream);
  check(cuda::wait(stream, exit_));
}

// Queues the step on the batch that waits, in a run that is open.
void DeviceEngine::queue_ahead(DeviceExecutor& executor, Feed& feed, Clock::time_point since) {
  const ChunkOptions& options = ahead_->options;
  const bool on_device = is_on_device(feed.source);
  Slot& slot = slots_[run_steps_ % kSlots];
  const Batch batch = feed.waiting;
  feed.has_waiting = false;
  fill(batch, feed.source, executor, slot);
  feed.source->release(batch);
  const bool first = ahead_->pending == 0, last = ahead_->pending + 1 >= options.accumulate;
  executor.layout().set_rates(slot.host, options.rates, options.rate_columns);
  ahead_->data_seconds += Seconds(Clock::now() - since).count();
  queue_step(executor, slot, moment_of(first, last), StepKind::kBatch, on_device ? &batch : nullptr);
  ahead_->pending = last ? 0 : ahead_->pending + 1;
  ahead_->updates += last;
  ++queued_;
}

ChunkResult DeviceEngine::step(Feed& feed, const ChunkOptions& options, void* caller) {
  require_known();
  ChunkResult result;
  const auto failed = [&] {
    if (failed_) result = failed_->result;
    return failed_.has_value();
  };
  if (options.rate_columns > most_rates_ || (ahead_ && !same_run(ahead_->options, options))) settle();
  if (failed()) return result;
  const cuda::OnDevice on(kWho, device_.device);
  grow_rates(options.rate_columns);
  const Clock::time_point began = Clock::now();
  const ChunkEnd got = feed.fetch(kNoDeadline, &result.status);
  result.end = got;
  if (got != ChunkEnd::kSteps) return result;
  DeviceExecutor* const executor = find(mode_of(true, options.weighted), feed.waiting.rows);
  if (executor == nullptr) {
    result.end = ChunkEnd::kProgram, result.rows = feed.waiting.rows;
    return result;
  }
  const Clock::time_point fetched = Clock::now();
  const bool opens = !ahead_;
  if (opens) {
    for (int64_t i = 0; i < DeviceLedger::kLosses; ++i) losses_in(losses_)[i] = {};
    begin(options, {}, losses_in(losses_), caller);
    ahead_ = Ahead{options, queued_, 0, state_.updates, state_.pending, 0};
  }
  try {
    ahead_->options = options;
    cuda::wait_for(kWho, slots_[run_steps_ % kSlots].copied);  // so all but kLaps - 1 steps are done
    const int64_t done = run_steps_ - kLaps + 1;
    read_laps(done);
    keep_near(*executor);
    if (!planted(Plant::kLossSlotReused)) listen(laps_read_);
    if (failed()) return result;
    if (!opens) order_behind(caller, is_on_device(feed.source));
    queue_ahead(*executor, feed, Clock::now() - (fetched - began));
    if (!planted(Plant::kNoExitWait)) end(caller);
  } catch (const Error&) {
    // What was queued before the failure is whole steps: count them. If that fails, too, `lost_` says so.
    try {
      settle();
    } catch (const Error&) {
    }
    throw;
  }
  return result;
}

}  // namespace gradring
