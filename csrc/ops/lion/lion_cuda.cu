// The formulas are in update_vector.h, which the CPU's kernels use, too.
// Bytes per element: three reads (param, grad, m) and two writes (param, m) of sizeof(T). FLOPs per element: 9.
#include "cuda/device.h"
#include "ops/cuda_step.h"
#include "ops/lion/update_vector.h"

namespace gradring {

namespace {

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    lion_kernel(const StepRecord* step, LionArguments<T> g, StepScalars scalars) {
  if (stopped(step)) return;
  const device::LionFactors<T> factors(g, scalars.rate(step), scalars.scale());
  const device::Arrays<T> a{{g.param, g.grad, g.m}, {g.param, g.m}};
  device::for_elements<3, 2, 1, int64_t>(device::thread_in_grid(), device::threads_in_grid(), g.n, a,
                                         [&](int64_t, const T* x, T* y) {
                                           y[0] = x[0], y[1] = x[2];
                                           device::lion_vector<T>(factors, y, y + 1, x[1], LoadOne{}, StoreOne{});
                                         });
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  LionArguments<T> g;
  const Tensor& param = operand(call, "param");
  g.n = param.elements(), g.param = param.as<T>(), g.grad = gradient_of(call).as<const T>();
  g.m = operand(call, "m").as<T>();
  g.beta1 = real(call, "beta1"), g.beta2 = real(call, "beta2"), g.weight_decay = real(call, "weight_decay");
  return launch_flat<T>(call, queue, g.n, lion_kernel<T>, g, step_scalars(call));
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"param", "grad", "m", "gradient", "clip", "weight", "lr", "finite", "bounded"});
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel lion_cuda_kernels[] = {
    {.op = "lion_update", .choose = choose},
    {.op = "lion", .choose = choose},
};
extern const size_t lion_cuda_kernel_count = std::size(lion_cuda_kernels);

}  // namespace gradring
