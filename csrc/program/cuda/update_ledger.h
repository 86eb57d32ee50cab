// UpdateLedger: what decides the updates of a user's own steps, in the device's memory. As in DeviceLedger, the fault word is sticky:
// once record.fault is set, all kernels here and those of the updates change nothing, until the host has read the ledger and cleared
// it. So the host need not know how a step ended before it queues the next one.
#pragma once

#include <cstdint>

#include "ops/cuda_spans.h"
#include "ops/step_record.h"
#include "runtime/dtype.h"

namespace gradring {

// Comes first in each table that the host gives for an update. Learning rates follow, and then the spans.
struct UpdateHeader {
  int64_t number = 1;  // Adam's t
  int64_t entry = 0;   // what the host calls the update
  double weight = 1;   // the gradients are divided by it
  int64_t rate_count = 0;
};

struct UpdateLedger {
  static constexpr int64_t kLosses = 512;  // the host must read a report before as many entries have come

  StepRecord record;
  int64_t fault_entry = -1;  // the entry that has failed
  int64_t fault_span = -1;   // which gradient, if the fault is kGradient
  double losses[kLosses] = {};
};

// The sum of the squares of a part of a gradient, and whether (1) or not (0) one of its elements is not finite.
struct PartSum {
  double squares, bad;
};

// Keeps the loss of an entry: one float or double in device memory. With `check`, a loss that is not finite is a fault.
int queue_loss(UpdateLedger* ledger, const void* loss, Dtype dtype, int64_t entry, bool check, void* stream) noexcept;

// Writes the sum of each part of gradients of this dtype.
int queue_squares(const CudaSpans& spans, Dtype dtype, PartSum* sums, int processors, void* stream) noexcept;

// For each part, param = samples * grad, plus the old param unless `first`.
int queue_sums(const CudaSpans& spans, Dtype dtype, double samples, bool first, int processors, void* stream) noexcept;

struct Decision {
  const UpdateHeader* header = nullptr;  // in device memory, with the rates behind it
  const CudaPart* parts = nullptr;
  const PartSum* sums = nullptr;  // null: no gradient is looked at
  int64_t part_count = 0;
  bool check = false;  // a gradient that is not finite is a fault
  double limit = -1;   // the largest norm of all gradients; negative: any
};

// Gives the record the numbers of an update, or a fault.
int queue_decision(UpdateLedger* ledger, const Decision& decision, void* stream) noexcept;

int queue_no_fault(UpdateLedger* ledger, void* stream) noexcept;

}  // namespace gradring
