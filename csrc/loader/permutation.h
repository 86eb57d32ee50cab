// Permutation: a keyed bijection on [0, n) in O(1) memory: position -> sample.
//
// It is a Feistel network (Luby and Rackoff 1988) on the next power of two; one half is a bit longer if the number of bits is
// odd. A result that is n or more is put through the network again until it is below n ("cycle walking", Black and Rogaway
// 2002). That takes fewer than two evaluations on average. A half of up to eight bits has so few values that each round's function
// of it is a table, made with the permutation; for 1,440 samples that is 384 evaluations of the function in place of 16,000.
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

class GRADRING_API Permutation {
 public:
  // The order of epoch number `epoch`, for a source of n samples and this seed.
  Permutation(uint64_t n, uint64_t seed, uint64_t epoch) noexcept;

  uint64_t size() const noexcept { return n_; }
  uint64_t operator()(uint64_t position) const noexcept;
  // out[i] = (*this)(first + i), faster than one by one: the evaluations overlap.
  void fill(uint64_t first, int64_t count, int64_t* out) const noexcept;

 private:
  static constexpr int kRounds = 8;
  static constexpr int kLeastBits = 6;
  static constexpr int kTableBits = 8;  // the most bits of a half for which there are tables

  uint64_t encrypt(uint64_t x) const noexcept;
  uint64_t look_up(uint64_t x) const noexcept;  // the same by tables
  template <class Encrypt>
  void fill_with(uint64_t first, int64_t count, int64_t* out, const Encrypt& encrypt) const noexcept;

  uint64_t n_;
  int low_bits_;
  uint64_t low_mask_;
  uint64_t high_mask_;
  uint64_t keys_[kRounds];
  bool tabled_;
  uint8_t tables_[kRounds][1 << kTableBits];  // of each round: what it changes in one half, by the value of the other
};

}  // namespace gradring
