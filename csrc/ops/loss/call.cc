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

void check_sample_weight(const OpCall& call, int axes, int64_t rows) {
  const Tensor& weights = call[kSampleWeight];
  if (!weights) return;
  bool same = weights.rank == axes;
  for (int axis = 0; same && axis < axes; ++axis) same = weights.shape[axis] == call[kPrediction].shape[axis];
  if (same) return;
  refuse(call, call.operand_name(kSampleWeight) + std::string(" is ") + shape_text(weights) +
                   ": must have one number for each of " + std::to_string(rows) + " samples of " +
                   shape_text(call[kPrediction]));
}

void verify_sample_weight(const OpCall& call, bool weighted) {
  if (!weighted || !call[kTotals]) return;
  const auto& totals = *call[kTotals].as<const LossTotals>();
  if (totals.bad_weight >= 0) {
    refuse(call, "the weight of sample " + std::to_string(totals.bad_weight) +
                     " is negative, infinite or NaN: weights must be numbers of at least 0");
  }
  if (reduction_of(call) == Reduction::kMean && totals.weight == 0 && call[kPrediction].elements() > 0) {
    refuse(call, "all weights are zero: a mean needs a weight above 0; or give reduction='sum'");
  }
}

}  // namespace gradring
