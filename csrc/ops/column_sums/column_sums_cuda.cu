// column_sums: see column_sums.h, and cuda_columns.h for the kernels.
// Bytes per element: one read of sizeof(T). FLOPs per element: 1.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/cuda_columns.h"

namespace gradring {

namespace {

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  return queue_column_sums(call, queue, x.rows(), x.columns(), x.as<const T>(), operand(call, "y").as<T>(),
                           queue.scratch);
}

size_t scratch(const OpCall& call, const CudaQueue&) noexcept {
  const Tensor& x = operand(call, "x");
  return x.dtype == Dtype::kFloat32 ? column_sums_bytes<float>(x.rows(), x.columns())
                                    : column_sums_bytes<double>(x.rows(), x.columns());
}

}  // namespace

extern const CudaKernel column_sums_cuda_kernels[] = {
    {.op = "column_sums", .choose = by_real_cuda<run<float>, run<double>>, .scratch = scratch},
};
extern const size_t column_sums_cuda_kernel_count = std::size(column_sums_cuda_kernels);

}  // namespace gradring
