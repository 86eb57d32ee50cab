// The formulas are in update_vector.h, which the CPU's kernels use, too.
// Bytes per element: three reads (param, grad, v) and two writes (param, v) of sizeof(T), and one of each more for `centered` and
// for momentum. FLOPs per element: 8, centered 13, momentum 2 more, and a root and a division.
#include "cuda/device.h"
#include "ops/cuda_step.h"
#include "ops/rmsprop/update_vector.h"

namespace gradring {

namespace {

template <bool kCentered, bool kMomentum, class T>
__global__ void __launch_bounds__(device::kElementThreads)
    rmsprop_kernel(const StepRecord* step, RmspropArguments<T> g, StepScalars scalars) {
  if (stopped(step)) return;
  constexpr int kMean = 2, kVelocity = kCentered ? 3 : 2, kState = 2 + kCentered + kMomentum;
  const device::RmspropFactors<T> factors(g, scalars.rate(step), scalars.scale());
  device::Arrays<T> a{{g.param, g.v}, {g.param, g.v}};
  if constexpr (kCentered) a.in[kMean] = g.mean, a.out[kMean] = g.mean;
  if constexpr (kMomentum) a.in[kVelocity] = g.velocity, a.out[kVelocity] = g.velocity;
  a.in[kState] = g.grad;
  device::for_elements<kState + 1, kState, 1, int64_t>(
      device::thread_in_grid(), device::threads_in_grid(), g.n, a, [&](int64_t, const T* x, T* y) {
        GRADRING_UNROLL
        for (int k = 0; k < kState; ++k) y[k] = x[k];
        device::rmsprop_vector<kCentered, kMomentum, T>(factors, y, y + 1, y + (kCentered ? kMean : 0),
                                                        y + (kMomentum ? kVelocity : 0), x[kState], LoadOne{},
                                                        StoreOne{});
      });
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  RmspropArguments<T> g;
  const Tensor& param = operand(call, "param");
  g.n = param.elements(), g.param = param.as<T>(), g.grad = gradient_of(call).as<const T>();
  g.v = operand(call, "v").as<T>();
  if (flag(call, "centered")) g.mean = operand(call, "mean").as<T>();
  if (real(call, "momentum") != 0) g.velocity = operand(call, "velocity").as<T>();
  g.alpha = real(call, "alpha"), g.eps = real(call, "eps"), g.momentum = real(call, "momentum");
  g.weight_decay = real(call, "weight_decay");
  auto* const kernel = g.mean       ? g.velocity ? rmsprop_kernel<true, true, T> : rmsprop_kernel<true, false, T>
                             : g.velocity ? rmsprop_kernel<false, true, T>
                                    : rmsprop_kernel<false, false, T>;
  return launch_flat<T>(call, queue, g.n, kernel, g, step_scalars(call));
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(
      call, {"param", "grad", "v", "mean", "velocity", "gradient", "clip", "weight", "lr", "finite", "bounded"});
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel rmsprop_cuda_kernels[] = {
    {.op = "rmsprop_update", .choose = choose},
    {.op = "rmsprop", .choose = choose},
};
extern const size_t rmsprop_cuda_kernel_count = std::size(rmsprop_cuda_kernels);

}  // namespace gradring
