// DeviceLedger: what decides a step and what is counted over steps, in the device's memory. On the CPU, lane 0 does this
// bookkeeping between two steps (epoch.cc). Here two small kernels do it, one before and one after the instructions, so that the
// host need not know how a step ended before it queues the next one.
//
// The fault word is sticky: once record.fault is set, both kernels and all kernels of ops change nothing, until the host has read
// the ledger and queues a new one. So counts, parameters, buffers and totals are those of the last whole step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/step_record.h"
#include "program/epoch.h"

namespace gradring {

// The header of each batch, at the beginning of its slot. Learning rates follow, then the samples' numbers, then the fields.
struct StepHeader {
  int64_t position = 0;    // as in Batch
  int64_t whole_rows = 0;  // as in Batch
  int64_t rate_count = 0;
  bool has_samples = false;
};

// The loss of a step whose loss the host reads while later steps run. It lies in pinned memory of the host.
struct StepLoss {
  int64_t number = -1;  // of a step since the run's begin; the step has ended well if it is here
  double loss = 0;
};

struct DeviceLedger {
  static constexpr int64_t kLosses = 8;  // the host must read a loss before as many steps have followed

  StepRecord record;
  // The host sets these before a run.
  uint64_t seed = 0;
  bool train = true, check_finite = true, need_weight = false;
  StepLoss* losses = nullptr;  // kLosses of them, or null: the host reads none before the run's end
  // Both kernels read and write these.
  TrainState state;
  Totals totals;
  // Which batch the fault is of: its position, and the number of the sample in row record.fault_row, or -1.
  int64_t fault_position = 0, fault_rows = 0, fault_sample = -1;
  bool fault_noted = false;
  Fault held = Fault::kNone;  // the fault that a rehearsal keeps for later
};

// A slot's parts in device memory.
struct SlotPlaces {
  const StepHeader* header = nullptr;
  const double* rates = nullptr;
  const int64_t* samples = nullptr;
};

// Queue the two kernels for a batch of so many rows. `moment` has the bits of When. With kFlush, the step only applies the
// gradients that wait. They return a code of the CUDA runtime.
enum class StepKind : uint8_t { kBatch, kFlush };
int queue_begin(DeviceLedger* ledger, const SlotPlaces& slot, int64_t rows, uint8_t moment, StepKind kind,
                void* stream) noexcept;
int queue_end(DeviceLedger* ledger, const SlotPlaces& slot, int64_t rows, StepKind kind, void* stream) noexcept;

// Between these two, instructions that are queued change nothing: a rehearsal, in which libraries prepare what they need.
int queue_rehearsal_begin(DeviceLedger* ledger, void* stream) noexcept;
int queue_rehearsal_end(DeviceLedger* ledger, void* stream) noexcept;

}  // namespace gradring
