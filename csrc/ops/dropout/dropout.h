// dropout: y = x / (1 - p) where a random number keeps the element, else 0 (Srivastava et al. 2014, the inverted form).
//
// The numbers are Philox4x32-10 words, keyed by (seed, layer, epoch) and counted by (sample, column): a sample's mask
// does not depend on its place in the batch, the batch size, lanes or replicas. The backward pass computes the mask
// again instead of storing it, so the vjp is the same function, of dy.
//
//   key     = first two words of philox(counter {layer, epoch, 0x64726f70, 0}, key seed)
//   words   = philox(counter {column / 8, 0, sample low, sample high}, key)
//   number  = the 16-bit half column % 8 of the words, low half of word 0 first; kept if number >= round(p 65536)
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

template <class T>
struct DropoutArguments {
  int64_t rows = 0, columns = 0;
  const T* x = nullptr;
  T* y = nullptr;                    // may be x
  const int64_t* samples = nullptr;  // each row's sample number; null: first_sample + row
  int64_t first_sample = 0;
  uint64_t seed = 0;
  uint32_t layer = 0;
  uint32_t epoch = 0;
  double p = 0;  // the probability of dropping an element, rounded to a multiple of 1/65536
};

template <class T>
void dropout(const Lane& lane, const DropoutArguments<T>& arguments) noexcept;

int dropout_lanes(int64_t rows, int64_t columns, int lanes) noexcept;

}  // namespace gradring
