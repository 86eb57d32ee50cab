// softmax_cross_entropy: per row the cross entropy of softmax(x) with a target distribution, its gradient, and the
// totals that a training step needs, in one pass over rows that stay in cache.
//
// By default the target is a class number, and the row's loss is log(sum exp(x)) - x[label]. In general the loss is
//   sum over classes c of a[c] (log(sum exp(x)) - x[c]),
//   a[c] = class_weights[c] ((1 - smoothing) t[c] + smoothing / classes)
// where t is the one-hot row of the label, or the row of `soft`. Smoothing is from Szegedy et al., "Rethinking the
// Inception Architecture for Computer Vision", 2016, section 7, and the weights are as in PyTorch's cross_entropy.
#pragma once

#include <cstdint>

#include "ops/loss/loss.h"

namespace gradring {

// How far from 1 the sum of a row of probabilities may be: rounding them to bfloat16, or to three decimals for ten classes,
// makes an error of about half of this, and every wrong kind of target a larger one.
inline constexpr double kSumError = 0.01;

// Every output may be null.
template <class T>
struct CrossEntropyArguments {
  int64_t rows = 0, classes = 0;
  const T* logits = nullptr;
  Labels labels;
  const T* soft = nullptr;           // rows x classes: probabilities, in place of labels
  const T* class_weights = nullptr;  // per class; null: ones
  const T* weights = nullptr;        // per row: factors of its loss; null: ones
  T smoothing = 0;                   // 0 to below 1: this share of the target is spread over all classes
  // Divide scale by the sum over the rows of weights[row] * class_weights[label]; for soft targets, of weights[row].
  bool divide = false;
  T* losses = nullptr;         // per row
  T* dlogits = nullptr;        // the gradient of the row's loss, times scale and dlosses[row]; may be logits
  const T* dlosses = nullptr;  // null: ones
  T scale = 1;                 // training: 1 / the global number of samples
  T* column_sums = nullptr;    // the column sums of dlogits, which is required: the last layer's bias gradient
  // A row is correct if its first largest logit is the label's, or that of the first largest probability.
  LossTotals* totals = nullptr;
};

// A label outside [0, classes) is never used as an index: its row has loss 0 and gradient 0, and totals->bad_row
// names it. totals->bad_row also names the first row of `soft` that has an element outside [0, 1], or
// whose sum is not 1.
template <class T>
void cross_entropy(const Lane& lane, const CrossEntropyArguments<T>& arguments) noexcept;

template <class T>
ScratchBytes cross_entropy_scratch(const CrossEntropyArguments<T>& arguments, int lanes) noexcept;
template <class T>
int cross_entropy_lanes(const CrossEntropyArguments<T>& arguments, int lanes) noexcept;

}  // namespace gradring
