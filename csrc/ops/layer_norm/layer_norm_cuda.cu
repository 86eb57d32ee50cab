// layer_norm and its vjp: row_norm_cuda.h, with the mean, has the kernels and their counts of bytes and FLOPs.
#include "cuda/device.h"
#include "ops/row_norm_cuda.h"

namespace gradring {

extern const CudaKernel layer_norm_cuda_kernels[] = {row_norm_forward<true>("layer_norm"),
                                                     row_norm_backward<true>("layer_norm_vjp")};
extern const size_t layer_norm_cuda_kernel_count = std::size(layer_norm_cuda_kernels);

}  // namespace gradring
