#include "ops/matmul/matmul.h"

#include "ops/matmul/matmul_kernels.h"
#include "ops/tiles/kernels.h"

namespace gradring {

namespace {

const MatmulKernels<float>& kernels_of(const MatmulArguments<float>& arguments) noexcept {
  return by_pieces(arguments) ? GRADRING_KERNELS(pieces_kernels) : GRADRING_KERNELS(matmul_kernels_f32);
}

}  // namespace

// Below these sizes, packing takes longer than the tile unit saves.
bool by_pieces(const MatmulArguments<float>& g) noexcept {
  if (g.products == Products::kFma) return false;
  return g.m >= 48 && g.n >= 48 && g.k >= 64;
}

template <>
ScratchBytes matmul_scratch(const MatmulArguments<float>& arguments, int lanes) noexcept {
  return kernels_of(arguments).scratch(arguments, lanes);
}
template <>
ScratchBytes matmul_scratch(const MatmulArguments<double>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels_f64).scratch(arguments, lanes);
}

template <>
int matmul_lanes(const MatmulArguments<float>& arguments, int lanes) noexcept {
  return kernels_of(arguments).lanes(arguments, lanes);
}
template <>
int matmul_lanes(const MatmulArguments<double>& arguments, int lanes) noexcept {
  return GRADRING_KERNELS(matmul_kernels_f64).lanes(arguments, lanes);
}

template <>
void matmul(const Lane& lane, const MatmulArguments<float>& arguments) noexcept {
  kernels_of(arguments).run(lane, arguments);
}
template <>
void matmul(const Lane& lane, const MatmulArguments<double>& arguments) noexcept {
  GRADRING_KERNELS(matmul_kernels_f64).run(lane, arguments);
}

}  // namespace gradring
