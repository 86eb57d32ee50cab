// Subnormal numbers in optimizers' kernels.
//
// Without a gradient, a running mean decays from step to step. Under IEEE 754 it would become subnormal and stay so for ever, because
// the smallest numbers round to themselves, and some processors take many times as long for an operation on subnormal numbers. Such
// numbers are too small to move a parameter, so the kernels of optimizers take them for zeros, as XLA and TensorFlow do everywhere.
#pragma once

#include <cstdint>

#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// While it lives, this thread's operations take subnormal operands for zeros and make zeros of subnormal results. Processors of
// another kind than these two keep subnormal numbers.
class SubnormalsAsZeros {
 public:
  GRADRING_INLINE SubnormalsAsZeros() noexcept : before_(mode()) { set(before_ | kZeros); }
  GRADRING_INLINE ~SubnormalsAsZeros() { set(before_); }
  SubnormalsAsZeros(const SubnormalsAsZeros&) = delete;
  SubnormalsAsZeros& operator=(const SubnormalsAsZeros&) = delete;

 private:
  // An instruction that writes the mode claims to touch memory, so that no load or store moves across it.
#if defined(__x86_64__)
  using Mode = uint32_t;
  static constexpr Mode kZeros = 1 << 15 | 1 << 6;  // flush to zero, and denormals are zeros
  static GRADRING_INLINE Mode mode() noexcept { return __builtin_ia32_stmxcsr(); }
  static GRADRING_INLINE void set(Mode mode) noexcept { asm volatile("ldmxcsr %0" : : "m"(mode) : "memory"); }
#elif defined(__aarch64__)
  using Mode = uint64_t;
  static constexpr Mode kZeros = 1 << 24;
  static GRADRING_INLINE Mode mode() noexcept {
    Mode mode = 0;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static GRADRING_INLINE void set(Mode mode) noexcept { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
  using Mode = int;
  static constexpr Mode kZeros = 0;
  static GRADRING_INLINE Mode mode() noexcept { return 0; }
  static GRADRING_INLINE void set(Mode) noexcept {}
#endif

  Mode before_;
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
