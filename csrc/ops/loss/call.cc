#include "ops/loss/call.h"

namespace gradring {

void check_dlosses(const OpCall& call, int axes, int64_t rows) {
  const Tensor& dlosses = call[kDlosses];
  if (!dlosses) return;
  const std::string name = call.operand_name(kDlosses);
  if (reduction_of(call) != Reduction::kSample) {
    refuse(call, name + " is an array: must be a number, because the loss is one; or give reduction='sample'");
  }
  bool same = dlosses.rank == axes;
  for (int axis = 0; same && axis < axes; ++axis) same = dlosses.shape[axis] == call[kPrediction].shape[axis];
  if (same) return;
  refuse(call, name + " is " + shape_text(dlosses) + ": must have one number for each of " + std::to_string(rows) +
                   " samples of " + shape_text(call[kPrediction]));
}

}  // namespace gradring
