#include "ops/matmul/matmul.h"

#include "ops/matmul/matmul_kernels.h"

namespace gradring {

template <>
ScratchBytes matmul_scratch(const MatmulArguments<float>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels_f32).scratch(arguments, lanes);
}
template <>
ScratchBytes matmul_scratch(const MatmulArguments<double>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels_f64).scratch(arguments, lanes);
}

template <>
int matmul_lanes(const MatmulArguments<float>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels_f32).lanes(arguments, lanes);
}
template <>
int matmul_lanes(const MatmulArguments<double>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels_f64).lanes(arguments, lanes);
}

template <>
void matmul(const Lane& lane, const MatmulArguments<float>& arguments) noexcept {
  GRADRING_KERNELS(matmul_kernels_f32).run(lane, arguments);
}
template <>
void matmul(const Lane& lane, const MatmulArguments<double>& arguments) noexcept {
  GRADRING_KERNELS(matmul_kernels_f64).run(lane, arguments);
}

}  // namespace gradring
