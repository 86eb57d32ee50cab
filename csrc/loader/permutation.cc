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
  tabled_ = bits - low_bits_ <= kTableBits;
  if (!tabled_) return;
  for (int round = 0; round < kRounds; ++round) {
    const bool even = round % 2 == 0;
    const uint64_t most = even ? low_mask_ : high_mask_, mask = even ? high_mask_ : low_mask_;
    for (uint64_t x = 0; x <= most; ++x) tables_[round][x] = static_cast<uint8_t>(mix(x + keys_[round]) & mask);
  }
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

inline uint64_t Permutation::look_up(uint64_t x) const noexcept {
  uint64_t high = x >> low_bits_;
  uint64_t low = x & low_mask_;
  for (int round = 0; round < kRounds; round += 2) {
    high ^= tables_[round][low];
    low ^= tables_[round + 1][high];
  }
  return high << low_bits_ | low;
}

uint64_t Permutation::operator()(uint64_t position) const noexcept {
  uint64_t x = tabled_ ? look_up(position) : encrypt(position);
  while (x >= n_) x = tabled_ ? look_up(x) : encrypt(x);
  return x;
}

// The results that are too large go to a list without a branch, because no processor predicts which ones they are.
template <class Encrypt>
inline void Permutation::fill_with(uint64_t first, int64_t count, int64_t* out, const Encrypt& encrypt) const noexcept {
  constexpr int64_t kAtOnce = 256;
  uint16_t again[kAtOnce];
  for (int64_t begin = 0; begin < count; begin += kAtOnce) {
    const int64_t some = count - begin < kAtOnce ? count - begin : kAtOnce;
    int64_t* const to = out + begin;
    int64_t left = 0;
    for (int64_t i = 0; i < some; ++i) {
      const uint64_t x = encrypt(first + static_cast<uint64_t>(begin + i));
      to[i] = static_cast<int64_t>(x);
      again[left] = static_cast<uint16_t>(i);
      left += x >= n_;
    }
    while (left > 0) {
      int64_t still = 0;
      for (int64_t j = 0; j < left; ++j) {
        const uint16_t i = again[j];
        const uint64_t x = encrypt(static_cast<uint64_t>(to[i]));
        to[i] = static_cast<int64_t>(x);
        again[still] = i;
        still += x >= n_;
      }
      left = still;
    }
  }
}

void Permutation::fill(uint64_t first, int64_t count, int64_t* out) const noexcept {
  if (tabled_) return fill_with(first, count, out, [this](uint64_t x) { return look_up(x); });
  fill_with(first, count, out, [this](uint64_t x) { return encrypt(x); });
}

}  // namespace gradring
