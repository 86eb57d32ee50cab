// Philox4x32-10 on as many counters in parallel as a vector has 32-bit elements. runtime/philox.h is the scalar form.
#pragma once

#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The four words that each of kWidth<uint32_t> counters gives.
struct PhiloxVectors {
  Vec<uint32_t> w[4];
};

// The high and the low halves of the products of 32-bit elements. Even and odd elements are multiplied separately, as
// 64-bit elements.
GRADRING_INLINE void multiply_wide(Vec<uint32_t> a, uint32_t b, Vec<uint32_t>* high, Vec<uint32_t>* low) noexcept {
  const Vec<uint64_t> pairs = reinterpret_cast<Vec<uint64_t>>(a);
  const Vec<uint64_t> even = (pairs & 0xffffffffull) * b;
  const Vec<uint64_t> odd = (pairs >> 32) * b;
  *low = reinterpret_cast<Vec<uint32_t>>((even & 0xffffffffull) | (odd << 32));
  *high = reinterpret_cast<Vec<uint32_t>>((even >> 32) | (odd & 0xffffffff00000000ull));
}

GRADRING_INLINE PhiloxVectors philox(PhiloxVectors c, uint32_t key0, uint32_t key1) noexcept {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    Vec<uint32_t> high0, low0, high1, low1;
    multiply_wide(c.w[0], 0xD2511F53, &high0, &low0);
    multiply_wide(c.w[2], 0xCD9E8D57, &high1, &low1);
    c.w[0] = high1 ^ c.w[1] ^ key0;
    c.w[1] = low1;
    c.w[2] = high0 ^ c.w[3] ^ key1;
    c.w[3] = low0;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return c;
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE
