// Losses that compare predictions and targets element by element; a row's loss is the mean over its columns.
//   mse:                   (p - t)^2
//   mae:                   |p - t|
//   huber:                 (p - t)^2 / 2 up to |p - t| = delta, and delta (|p - t| - delta / 2) beyond (Huber, "Robust
//                          Estimation of a Location Parameter", 1964)
//   binary_cross_entropy:  max(p, 0) - p t + log(1 + exp(-|p|)): a stable form of
//                          -t log(sigmoid(p)) - (1 - t) log(1 - sigmoid(p)); p are logits, t in [0, 1]. With pos_weights its first
//                          term is multiplied by the column's
#pragma once

#include <cstdint>

#include "ops/loss/loss.h"

namespace gradring {

enum class PointwiseLoss : int32_t { kMse, kBinaryCrossEntropy, kMae, kHuber };

// Every output may be null.
template <class T>
struct PointwiseLossArguments {
  PointwiseLoss kind = PointwiseLoss::kMse;
  int64_t rows = 0, columns = 0;
  const T* predictions = nullptr;
  const T* targets = nullptr;
  T delta = 1;                       // huber: above 0
  const T* pos_weights = nullptr;    // binary: per column; null: ones
  const T* weights = nullptr;        // per row: factors of its loss; null: ones
  const T* class_weights = nullptr;  // binary, of one column: the factors of targets 0 and 1; null: ones
  bool divide = false;               // scale is divided by the sum of the rows' factors
  T* losses = nullptr;               // per row
  T* gradient = nullptr;             // the gradient of the row's loss, times scale and dlosses[row]; may be predictions
  const T* dlosses = nullptr;        // null: ones
  T scale = 1;                       // training: 1 / the global number of samples
  T* column_sums = nullptr;          // the column sums of gradient, which is required
  LossTotals* totals = nullptr;      // binary: a row is correct if (p > 0) == (t > 1/2) in all its columns; others: 0
};

template <class T>
void pointwise_loss(const Lane& lane, const PointwiseLossArguments<T>& arguments) noexcept;

template <class T>
ScratchBytes pointwise_loss_scratch(const PointwiseLossArguments<T>& arguments, int lanes) noexcept;
template <class T>
int pointwise_loss_lanes(const PointwiseLossArguments<T>& arguments, int lanes) noexcept;

}  // namespace gradring
