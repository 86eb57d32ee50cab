#include "loader/permutation.h"

namespace gradring {

namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014), in Stafford's variant 13.
inline uint64_t mix(uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

inline int bit_width(uint64_t x) noexcept { return x ? 64 - __builtin_clzll(x) : 0; }

}  // namespace

Permutation::Permutation(uint64_t n, uint64_t seed, uint64_t epoch) noexcept : n_(n) {
  const int width = n > 1 ? bit_width(n - 1) : 0;
  // Halves of fewer than three bits do not mix well. For a tiny n, a larger power of two only means more cycle walking.
  const int bits = width < kLeastBits ? kLeastBits : width;
  low_bits_ = bits / 2;
  low_mask_ = (uint64_t{1} << low_bits_) - 1;
  high_mask_ = (uint64_t{1} << (bits - low_bits_)) - 1;
  uint64_t state = mix(seed + 0x9e3779b97f4a7c15ull) ^ mix(mix(epoch + 0x632be59bd9b4e019ull) + n);
  for (uint64_t& key : keys_) key = mix(state += 0x9e3779b97f4a7c15ull);
}

inline uint64_t Permutation::encrypt(uint64_t x) const noexcept {
  uint64_t high = x >> low_bits_;
  uint64_t low = x & low_mask_;
  for (int round = 0; round < kRounds; round += 2) {
    high ^= mix(low + keys_[round]) & high_mask_;
    low ^= mix(high + keys_[round + 1]) & low_mask_;
  }
  return high << low_bits_ | low;
}

uint64_t Permutation::operator()(uint64_t position) const noexcept {
  uint64_t x = encrypt(position);
  while (x >= n_) x = encrypt(x);
  return x;
}

void Permutation::fill(uint64_t first, int64_t count, int64_t* out) const noexcept {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<int64_t>(encrypt(first + static_cast<uint64_t>(i)));
  for (int64_t i = 0; i < count; ++i) {
    auto x = static_cast<uint64_t>(out[i]);
    while (x >= n_) x = encrypt(x);
    out[i] = static_cast<int64_t>(x);
  }
}

}  // namespace gradring
