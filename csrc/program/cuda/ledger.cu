#include "cuda/device.h"
#include "program/cuda/ledger.h"
#include "program/cuda/plant.h"

namespace gradring {

namespace {

// The same as Ledger::tell in epoch.cc.
__global__ void begin_kernel(DeviceLedger* ledger, SlotPlaces slot, int64_t rows, uint8_t moment, bool flush) {
  StepRecord& step = ledger->record;
  if (planted(Plant::kFaultReadTooLate)) step.fault = Fault::kNone;
  if (step.fault != Fault::kNone) return;
  const TrainState& state = ledger->state;
  const StepHeader& header = *slot.header;
  step.seed = ledger->seed, step.draw = state.draws;
  step.check_finite = ledger->check_finite, step.need_weight = ledger->need_weight;
  step.samples = header.has_samples ? slot.samples : nullptr;
  step.first_sample = header.position;
  step.moment = moment;
  step.rates = slot.rates, step.rate_count = header.rate_count;
  step.learning_rate = header.rate_count > 0 ? slot.rates[0] : 0;
  step.number = state.updates - state.fresh + 1;
  step.pending_weight = ledger->train ? state.pending_weight : 0;
  step.loss_scale = ledger->train && state.loss_scale != 0 ? state.loss_scale : 1;
  step.loss_sum = step.loss_weight = 0;
  step.total_weight = flush ? state.pending_weight : 0;
  step.correct = 0;
  step.fault_row = step.fault_place = -1, step.fault_value = 0;
  step.clip = 1, step.gradient_norm = 0;
  ledger->fault_position = header.position, ledger->fault_rows = rows;
}

// The same as Ledger::enter in epoch.cc.
__global__ void end_kernel(DeviceLedger* ledger, SlotPlaces slot, int64_t rows, bool flush) {
  StepRecord& step = ledger->record;
  const bool skipped = step.fault == Fault::kOverflow;
  if (skipped) step.fault = Fault::kNone;  // the next step runs
  if (step.fault != Fault::kNone && !planted(Plant::kCountsIgnoreFault)) {
    // Only the first kernel that sees the fault is of the failed step, whose batch is still in its slot.
    const bool known = step.fault_row >= 0 && step.fault_row < ledger->fault_rows && step.samples != nullptr;
    if (!ledger->fault_noted && known) ledger->fault_sample = step.samples[step.fault_row];
    ledger->fault_noted = true;
    return;
  }
  TrainState& state = ledger->state;
  Totals& totals = ledger->totals;
  if (!flush) {
    ++totals.steps;
    totals.last_loss = step.loss_weight == 0 ? 0 : step.loss_sum / step.loss_weight;  // no weight, no loss
    // A batch whose loss is not finite, which its scale excuses, is in no mean.
    const bool counts = step.counts();
    if (counts) {
      totals.samples += rows;
      totals.loss_sum += step.loss_sum;
      totals.loss_weight += step.loss_weight;
      totals.correct += step.correct;
    }
    if (ledger->losses != nullptr) {
      const int64_t number = totals.steps - 1;
      ledger->losses[number % DeviceLedger::kLosses] = {number, totals.last_loss};
    }
    if (!ledger->train) return;
    if (state.pending == 0) state.before_group = state.sums;
    if (counts) {
      state.sums.loss_sum += step.loss_sum;
      state.sums.loss_weight += step.loss_weight;
      state.sums.correct += step.correct;
      state.sums.samples += slot.header->whole_rows > 0 ? slot.header->whole_rows : rows;
    }
    ++state.draws;
    ++state.pending;
    state.pending_weight += step.loss_weight;
  }
  if ((step.moment & static_cast<uint8_t>(When::kLast)) == 0) return;
  state.pending = 0;
  state.pending_weight = 0;
  state.adapt_scale(!skipped);
  if (skipped) return;
  ++state.updates;
  ++totals.updates;
  totals.gradient_norm = step.gradient_norm;
}

// Sets a fault, because kernels change nothing while there is one.
__global__ void hold_kernel(DeviceLedger* ledger) {
  ledger->held = ledger->record.fault;
  ledger->record.fault = Fault::kCallback;
}

__global__ void resume_kernel(DeviceLedger* ledger) { ledger->record.fault = ledger->held; }

cudaStream_t stream_of(void* stream) noexcept { return static_cast<cudaStream_t>(stream); }

}  // namespace

int queue_begin(DeviceLedger* ledger, const SlotPlaces& slot, int64_t rows, uint8_t moment, StepKind kind,
                void* stream) noexcept {
  return LAUNCH(begin_kernel, dim3(1), dim3(1), 0, stream_of(stream), ledger, slot, rows, moment,
                kind == StepKind::kFlush);
}

int queue_end(DeviceLedger* ledger, const SlotPlaces& slot, int64_t rows, StepKind kind, void* stream) noexcept {
  return LAUNCH(end_kernel, dim3(1), dim3(1), 0, stream_of(stream), ledger, slot, rows, kind == StepKind::kFlush);
}

int queue_rehearsal_begin(DeviceLedger* ledger, void* stream) noexcept {
  return LAUNCH(hold_kernel, dim3(1), dim3(1), 0, stream_of(stream), ledger);
}

int queue_rehearsal_end(DeviceLedger* ledger, void* stream) noexcept {
  return LAUNCH(resume_kernel, dim3(1), dim3(1), 0, stream_of(stream), ledger);
}

}  // namespace gradring
