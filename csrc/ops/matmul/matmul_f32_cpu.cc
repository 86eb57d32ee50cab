#include "ops/matmul/run.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

constinit const TileTable<float> tiles_f32 = kTiles<float>;

extern const MatmulKernels<float> matmul_kernels_f32;
const MatmulKernels<float> matmul_kernels_f32 = kMatmulKernels<float>;

}  // namespace gradring::GRADRING_ISA_NAMESPACE
