// The formulas are in update_vector.h, which the CPU's kernels use, too.
// Bytes per element: 4 reads (param, grad, m, v) and 3 writes (param, m, v) of sizeof(T); with AMSGrad 5 and 4. FLOPs per element:
// 13, a root, a division.
#include "cuda/device.h"
#include "ops/adam/adam_cuda.h"
#include "ops/adam/update_vector.h"

namespace gradring {

namespace {

// base to the power of n, by squaring. pow() is a call for which a kernel keeps registers in local memory.
__device__ __forceinline__ double power(double base, int64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1) {
    if (n & 1) result *= base;
    base *= base;
  }
  return result;
}

template <bool kDecoupled, bool kAmsgrad, class T>
__global__ void __launch_bounds__(device::kElementThreads) adam_kernel(const StepRecord* step, CudaAdam<T> s) {
  if (stopped(step)) return;
  // One thread per block computes the powers, because powers of doubles are slow.
  SHARED_ARRAY(double, shared, 4);
  if (threadIdx.x == 0) {
    const double lr = s.scalars.rate(step);
    const int64_t t = s.scalars.count();
    shared[0] = lr;
    shared[1] = lr / (1 - power(s.g.beta1, t));
    shared[2] = 1 / sqrt(1 - power(s.g.beta2, t));
    shared[3] = s.scalars.scale();
  }
  __syncthreads();
  const AdamArguments<T>& g = s.g;
  const device::AdamVectorFactors<T> factors(g, {shared[1], shared[2]}, shared[0], shared[3]);
  const device::Arrays<T> a{{g.param, g.grad, g.m, g.v, g.vmax}, {g.param, g.m, g.v, g.vmax}};
  device::for_elements<kAmsgrad ? 5 : 4, kAmsgrad ? 4 : 3, 1, int64_t>(
      device::thread_in_grid(), device::threads_in_grid(), g.n, a, [&](int64_t, const T* x, T* y) {
        T state[4] = {x[0], x[2], x[3], kAmsgrad ? x[kAmsgrad ? 4 : 0] : T(0)};
        device::adam_vector<kDecoupled, kAmsgrad, T>(factors, state, state + 1, state + 2, state + 3, x[1], LoadOne{},
                                                     StoreOne{});
        y[0] = state[0], y[1] = state[1], y[2] = state[2];
        if constexpr (kAmsgrad) y[3] = state[3];
      });
}

template <bool kDecoupled, class T>
int launch(const OpCall& call, const CudaQueue& queue, const CudaAdam<T>& s) noexcept {
  auto* const kernel = s.g.vmax ? adam_kernel<kDecoupled, true, T> : adam_kernel<kDecoupled, false, T>;
  return launch_flat<T>(call, queue, s.g.n, kernel, s);
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  return queue_adam(call, queue, cuda_adam<T>(call, gradient_of(call).as<const T>()));
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(
      call, {"param", "grad", "m", "v", "vmax", "gradient", "clip", "weight", "number", "lr", "finite", "bounded"});
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

template <class T>
int queue_adam(const OpCall& call, const CudaQueue& queue, const CudaAdam<T>& s) noexcept {
  return s.g.decoupled ? launch<true>(call, queue, s) : launch<false>(call, queue, s);
}
template int queue_adam(const OpCall&, const CudaQueue&, const CudaAdam<float>&) noexcept;
template int queue_adam(const OpCall&, const CudaQueue&, const CudaAdam<double>&) noexcept;

extern const CudaKernel adam_cuda_kernels[] = {
    {.op = "adam_update", .choose = choose},
    {.op = "adam", .choose = choose},
};
extern const size_t adam_cuda_kernel_count = std::size(adam_cuda_kernels);

}  // namespace gradring
