// scale_gradient: see op.cc. Bytes per element: one read and one write of sizeof(T). FLOPs per element: 1.
#include "cuda/device.h"
#include "ops/cuda_call.h"

namespace gradring {

namespace {

template <class T>
struct Scaled {
  const double *scale, *loss;

  __device__ void operator()(int64_t, const device::Wide<T>* x, device::Wide<T>* y) const {
    const double zero = *loss - *loss;  // or NaN
    y[0] = static_cast<T>(zero == 0 ? *scale : zero) * x[0];
  }
};

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &y = operand(call, "y");
  const Scaled<T> f{operand(call, "scale").as<const double>(), operand(call, "loss").as<const double>()};
  return run_elements<1, 1, T>(call, queue, x.elements(), {{x.as<const T>()}, {y.as<T>()}}, f);
}

}  // namespace

extern const CudaKernel scale_gradient_cuda_kernels[] = {
    {.op = "scale_gradient", .choose = by_real_cuda<run<float>, run<double>>}};
extern const size_t scale_gradient_cuda_kernel_count = std::size(scale_gradient_cuda_kernels);

}  // namespace gradring
