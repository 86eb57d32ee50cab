#include "ops/norm/norm.h"

#include "ops/norm/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(sum_of_squares, SumOfSquaresArguments, sum_of_squares_kernel)

template <class T>
ScratchBytes sum_of_squares_scratch(const SumOfSquaresArguments<T>& arguments, int) noexcept {
  return {0, static_cast<size_t>((arguments.n + kNormBlock - 1) / kNormBlock) * sizeof(double)};
}
int sum_of_squares_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.1, lanes); }

template ScratchBytes sum_of_squares_scratch(const SumOfSquaresArguments<float>&, int) noexcept;
template ScratchBytes sum_of_squares_scratch(const SumOfSquaresArguments<double>&, int) noexcept;

}  // namespace gradring
