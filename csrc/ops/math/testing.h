// math.h's functions over arrays, compiled per ISA level for math_test.cc alone.
#pragma once

#include <cstdint>

#include "ops/dispatch.h"

namespace gradring {

template <class T>
struct MathTable {
  using Map = void (*)(const T* x, T* y, int64_t n) noexcept;
  Map exp, log, log1p_unit, tanh, sigmoid, softplus, normal, density;
};
struct MathKernels {
  MathTable<float> f32;
  MathTable<double> f64;
};

GRADRING_DECLARE_KERNELS(MathKernels, math_kernels)

}  // namespace gradring
