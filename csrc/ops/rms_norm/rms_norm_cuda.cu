// rms_norm and its vjp: row_norm_cuda.h, without a mean, has the kernels and their counts of bytes and FLOPs.
#include "cuda/device.h"
#include "ops/row_norm_cuda.h"

namespace gradring {

extern const CudaKernel rms_norm_cuda_kernels[] = {row_norm_forward<false>("rms_norm"),
                                                   row_norm_backward<false>("rms_norm_vjp")};
extern const size_t rms_norm_cuda_kernel_count = std::size(rms_norm_cuda_kernels);

}  // namespace gradring
