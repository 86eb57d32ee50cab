#include "ops/matmul/run.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

constinit const TileTable<double> tiles_f64 = kTiles<double>;

extern const MatmulKernels<double> matmul_kernels_f64;
const MatmulKernels<double> matmul_kernels_f64 = kMatmulKernels<double>;

}  // namespace gradring::GRADRING_ISA_NAMESPACE
