// The values that a call of dropout computes once from its arguments.
#pragma once

#include <cstdint>

namespace gradring {

struct DropoutKey {
  uint32_t key0, key1;
  int32_t threshold;  // a 16-bit number below it drops
  double scale;       // the factor of the elements that are kept
};

DropoutKey dropout_key(uint64_t seed, uint32_t layer, uint32_t epoch, double p) noexcept;

}  // namespace gradring
