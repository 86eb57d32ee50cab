// The call that a trial describes: what makes trials and what runs them share this.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cuda_tests/trial.h"

namespace gradring::testing {

// The arrays of a call, and the call itself.
struct Prepared {
  std::vector<std::vector<int64_t>> shapes, strides;
  std::vector<Tensor> tensors;
  OpCall call;
};

inline bool is_result(const OpSchema& op, size_t i) { return op.operands[i].access == Access::kWrite; }
inline bool is_field(const OpSchema& op, size_t i) { return op.operands[i].step != StepField::kNone; }

// data[i] is the address of operand i.
void prepare(const Trial& trial, bool widened, const std::vector<void*>& data, StepRecord* record, Prepared* p);

}  // namespace gradring::testing
