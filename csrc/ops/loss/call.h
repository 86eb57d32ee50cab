// What the losses' registrations share: operands and attributes.
//
// Every result is optional. `gradient` is that of the losses by the predictions, times `scale` and `dlosses`, and with
// reduction "mean" divided by the number of samples; with "sum" it is the gradient of the sum of all elements' losses;
// `column_sums` are its sums over the samples; `totals` is a LossTotals. `sample_weight` has one number per sample, by
// which its loss is multiplied; the mean is then the sum of the weighted losses over the sum of the weights.
// `class_weight` has one number per class, and `pos_weight` one per column.
#pragma once

#include "ops/loss/loss.h"
#include "ops/op.h"

namespace gradring {

enum LossOperand {
  kPrediction,
  kTarget,
  kDlosses,
  kGradient,
  kLosses,
  kColumnSums,
  kTotals,
  kSampleWeight,
  kClassWeight,
  kPosWeight
};
enum LossAttribute { kScale, kReduction };
enum class Reduction : int64_t { kSample, kMean, kSum };

inline constexpr const char* kReductionNames[] = {"sample", "mean", "sum"};
inline constexpr int64_t kTotalsWords = sizeof(LossTotals) / sizeof(int64_t);

inline Reduction reduction_of(const OpCall& call) noexcept { return static_cast<Reduction>(call.integer(kReduction)); }

// Whether the mean divides by the sum of the samples' weights, which the kernel computes, and not by their number.
inline bool divides_by_weight(const OpCall& call, bool weighted) noexcept {
  return weighted && reduction_of(call) == Reduction::kMean;
}

inline double loss_scale(const OpCall& call, int64_t rows, int64_t columns, bool weighted) noexcept {
  const double scale = call.real(kScale);
  if (reduction_of(call) == Reduction::kMean) return weighted ? scale : scale / static_cast<double>(rows);
  return reduction_of(call) == Reduction::kSum ? scale * static_cast<double>(columns) : scale;
}

// Checks that dlosses has one number per sample, and the reduction is "sample". `axes` axes number the samples.
void check_dlosses(const OpCall& call, int axes, int64_t rows);

inline void loss_shape(const OpCall& call, int axes, int operand, Shape* shape) {
  const Tensor& prediction = call[kPrediction];
  if (operand == kLosses) {
    shape->rank = axes;
    for (int axis = 0; axis < axes; ++axis) shape->extent[axis] = prediction.shape[axis];
    return;
  }
  shape->rank = 1;
  shape->extent[0] = operand == kTotals ? kTotalsWords : prediction.columns();
}

// The loss as one number, for reductions "mean" and "sum". A sample's loss is a mean over `columns` elements.
inline double loss_number(const OpCall& call, int64_t rows, int64_t columns, bool weighted) {
  const auto* totals = call[kTotals].as<const LossTotals>();
  if (reduction_of(call) == Reduction::kSum) return totals->loss * static_cast<double>(columns);
  return totals->loss / (weighted ? totals->weight : static_cast<double>(rows));
}

// Checks that sample_weight has one number per sample. `axes` axes number the samples.
void check_sample_weight(const OpCall& call, int axes, int64_t rows);
// Throws Error if a weight is negative, infinite or NaN, or if the reduction is "mean" and all weights are 0.
void verify_sample_weight(const OpCall& call, bool weighted);

}  // namespace gradring
