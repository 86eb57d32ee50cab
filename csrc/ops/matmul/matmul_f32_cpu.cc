#include "ops/matmul/run.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

extern const MatmulKernels<float> matmul_kernels_f32;
const MatmulKernels<float> matmul_kernels_f32 = kMatmulKernels<float>;

}  // namespace gradring::GRADRING_ISA_NAMESPACE
