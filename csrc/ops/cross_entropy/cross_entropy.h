// softmax_cross_entropy with class numbers as labels: for each row log(sum exp(x)) - x[label], its gradient, and the totals that
// a training step needs, in one pass over rows that stay in the cache.
#pragma once

#include <cstdint>

#include "gradring/export.h"
#include "ops/loss/loss.h"

namespace gradring {

// Every output may be null.
template <class T>
struct CrossEntropyArguments {
  int64_t rows = 0, classes = 0;
  const T* logits = nullptr;
  Labels labels;
  T* losses = nullptr;           // per row
  T* dlogits = nullptr;          // (softmax - one_hot(label)) * scale * dlosses[row]; may be logits
  const T* dlosses = nullptr;    // null: ones
  T scale = 1;                   // training: 1 / the global number of samples
  T* column_sums = nullptr;      // sums over the rows of dlogits, which must be given
  LossTotals* totals = nullptr;  // a row is correct if its first largest logit is the label's
};

// A label outside [0, classes) is never followed: its row has loss 0 and gradient 0, and totals->bad_row names it.
template <class T>
GRADRING_API void cross_entropy(const Lane& lane, const CrossEntropyArguments<T>& arguments) noexcept;

template <class T>
GRADRING_API ScratchBytes cross_entropy_scratch(const CrossEntropyArguments<T>& arguments, int lanes) noexcept;
template <class T>
GRADRING_API int cross_entropy_lanes(const CrossEntropyArguments<T>& arguments, int lanes) noexcept;

}  // namespace gradring
