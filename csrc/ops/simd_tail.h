// Tail: loads and stores the first elements of a vector, touching nothing beyond them.
#pragma once

#include "ops/simd.h"

#if defined(__AVX512VL__)
#include "ops/simd_tail_avx512.h"
#elif defined(__AVX2__)
#include "ops/simd_tail_avx2.h"
#else

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
class Tail {
 public:
  explicit Tail(int64_t count) noexcept : count_(count) {}  // 1 to kWidth<T>

  Vec<T> load(const T* from) const noexcept {
    if constexpr (kSmallCode) {
      return count_ >= kWidth<T> ? GRADRING_ISA_NAMESPACE::load<T>(from) : load_partial<T>(from, count_);
    } else {
      Vec<T> v{};
      for (int i = 0; i < kWidth<T>; ++i)
        if (i < count_) v[i] = from[i];
      return v;
    }
  }
  void store(T* to, Vec<T> v) const noexcept {
    if constexpr (kSmallCode) {
      return count_ >= kWidth<T> ? GRADRING_ISA_NAMESPACE::store<T>(to, v) : store_partial<T>(to, v, count_);
    } else {
      for (int i = 0; i < kWidth<T>; ++i)
        if (i < count_) to[i] = v[i];
    }
  }

 private:
  int64_t count_;
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#endif
