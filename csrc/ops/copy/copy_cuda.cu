// y = x. Bytes per element: one read and one write of sizeof(T). FLOPs: none.
#include "cuda/device.h"
#include "ops/cuda_call.h"

namespace gradring {

namespace {

template <class T>
struct Same {
  __device__ void operator()(int64_t, const device::Wide<T>* x, device::Wide<T>* y) const { y[0] = x[0]; }
};

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &y = operand(call, "y");
  return run_elements<1, 1, T>(call, queue, x.elements(), {{x.as<const T>()}, {y.as<T>()}}, Same<T>{});
}

}  // namespace

extern const CudaKernel copy_cuda_kernels[] = {{.op = "copy", .choose = by_real_cuda<run<float>, run<double>>}};
extern const size_t copy_cuda_kernel_count = std::size(copy_cuda_kernels);

}  // namespace gradring
