#include "ops/matmul/matmul.h"

#include "ops/matmul/matmul_kernels.h"

namespace gradring {

template <>
ScratchBytes matmul_scratch(const MatmulArguments<float>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels).scratch_f32(arguments, lanes);
}
template <>
ScratchBytes matmul_scratch(const MatmulArguments<double>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels).scratch_f64(arguments, lanes);
}

template <>
int matmul_lanes(const MatmulArguments<float>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels).lanes_f32(arguments, lanes);
}
template <>
int matmul_lanes(const MatmulArguments<double>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels).lanes_f64(arguments, lanes);
}

template <>
void matmul(const Lane& lane, const MatmulArguments<float>& arguments) noexcept {
  GRADRING_KERNELS(matmul_kernels).run_f32(lane, arguments);
}
template <>
void matmul(const Lane& lane, const MatmulArguments<double>& arguments) noexcept {
  GRADRING_KERNELS(matmul_kernels).run_f64(lane, arguments);
}

}  // namespace gradring
