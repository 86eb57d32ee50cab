// The formulas are in update_vector.h, which the CPU's kernels use, too.
// Bytes per element: two reads and one write of sizeof(T), with momentum three and two. FLOPs per element: 4, or 6.
#include "cuda/device.h"
#include "ops/sgd/sgd_cuda.h"
#include "ops/sgd/update_vector.h"

namespace gradring {

namespace {

using device::SgdKind;

template <SgdKind K, class T>
__global__ void __launch_bounds__(device::kElementThreads) sgd_kernel(const StepRecord* step, CudaSgd<T> s) {
  if (stopped(step)) return;
  constexpr bool kPlain = K == SgdKind::kPlain;
  SgdArguments<T> g = s.g;
  g.lr = s.scalars.rate(step), g.grad_scale = s.scalars.scale();
  const device::SgdFactors<T> factors(g);
  const device::Arrays<T> a{{g.grad, g.param, g.velocity}, {g.param, g.velocity}};
  device::for_elements<kPlain ? 2 : 3, kPlain ? 1 : 2, kPlain ? 2 : 1, int64_t>(
      device::thread_in_grid(), device::threads_in_grid(), g.n, a, [&](int64_t, const T* x, T* y) {
        T state[2] = {x[1], kPlain ? T(0) : x[kPlain ? 1 : 2]};
        device::update_vector<K, false, T>(factors, state, state + 1, x[0], LoadOne{}, StoreOne{});
        y[0] = state[0];
        if constexpr (!kPlain) y[1] = state[1];
      });
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  return queue_sgd(call, queue, cuda_sgd<T>(call, gradient_of(call).as<const T>()));
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(
      call, {"param", "grad", "velocity", "gradient", "momentum", "clip", "weight", "lr", "finite", "bounded"});
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

template <class T>
int queue_sgd(const OpCall& call, const CudaQueue& queue, const CudaSgd<T>& s) noexcept {
  auto* const kernel = s.g.momentum == 0 ? sgd_kernel<SgdKind::kPlain, T>
                       : s.g.nesterov    ? sgd_kernel<SgdKind::kNesterov, T>
                                         : sgd_kernel<SgdKind::kMomentum, T>;
  return launch_flat<T>(call, queue, s.g.n, kernel, s);
}
template int queue_sgd(const OpCall&, const CudaQueue&, const CudaSgd<float>&) noexcept;
template int queue_sgd(const OpCall&, const CudaQueue&, const CudaSgd<double>&) noexcept;

extern const CudaKernel sgd_cuda_kernels[] = {
    {.op = "sgd_update", .choose = choose},
    {.op = "sgd", .choose = choose},
};
extern const size_t sgd_cuda_kernel_count = std::size(sgd_cuda_kernels);

}  // namespace gradring
