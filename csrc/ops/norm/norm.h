// The global norm of a flat arena, and the factor that clips it.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/work.h"

namespace gradring {

inline constexpr int64_t kNormBlock = 4096;

// Sets *result to the sum of x[i]^2. It adds in double, in fixed blocks of kNormBlock elements, so the number of lanes changes no
// bit. Lane 0 writes the result.
template <class T>
struct SumOfSquaresArguments {
  int64_t n = 0;
  const T* x = nullptr;
  double* result = nullptr;
};

template <class T>
void sum_of_squares(const Lane& lane, const SumOfSquaresArguments<T>& arguments) noexcept;
template <class T>
ScratchBytes sum_of_squares_scratch(const SumOfSquaresArguments<T>& arguments, int lanes) noexcept;
int sum_of_squares_lanes(int64_t n, int lanes) noexcept;

// The factor that brings the norm of the gradients to at most max_norm, as torch's clip_grad_norm_ computes it: the 1e-6 avoids a
// division by zero. The factor is NaN if the norm is NaN.
inline double clip_factor(double sum_of_squares, double max_norm) noexcept {
  const double factor = max_norm / (std::sqrt(sum_of_squares) + 1e-6);
  return factor < 1 || factor != factor ? factor : 1.0;
}

}  // namespace gradring
