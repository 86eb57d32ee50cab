// sum += gradient. Bytes per element: two reads and one write of sizeof(T). FLOPs per element: 1.
#include "cuda/device.h"
#include "ops/cuda_call.h"

namespace gradring {

namespace {

template <class T>
struct Sum {
  __device__ void operator()(int64_t, const device::Wide<T>* x, device::Wide<T>* y) const { y[0] = x[0] + x[1]; }
};

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &sum = operand(call, "sum"), &gradient = operand(call, "gradient");
  return run_elements<2, 1, T>(call, queue, sum.elements(),
                               {{sum.as<const T>(), gradient.as<const T>()}, {sum.as<T>()}}, Sum<T>{});
}

}  // namespace

extern const CudaKernel accumulate_cuda_kernels[] = {
    {.op = "accumulate", .choose = by_real_cuda<run<float>, run<double>>}};
extern const size_t accumulate_cuda_kernel_count = std::size(accumulate_cuda_kernels);

}  // namespace gradring
