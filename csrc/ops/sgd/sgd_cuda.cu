// The formulas are in update_vector.h, which the CPU's kernels use, too.
// Bytes per element: two reads and one write of sizeof(T), with momentum three and two. FLOPs per element: 4, or 6.
#include "cuda/device.h"
#include "ops/sgd/sgd_cuda.h"
#include "ops/sgd/update_vector.h"

namespace gradring {

namespace {

using device::SgdKind;

// Thread `me` of `all` updates its share of n elements.
template <SgdKind K, class Index, class T>
__device__ __forceinline__ void update(const device::SgdFactors<T>& factors, const SgdArguments<T>& g, Index me,
                                       Index all, Index n) {
  constexpr bool kPlain = K == SgdKind::kPlain;
  const device::Arrays<T> a{{g.grad, g.param, g.velocity}, {g.param, g.velocity}};
  device::for_elements<kPlain ? 2 : 3, kPlain ? 1 : 2, kPlain ? 2 : 1, Index>(
      me, all, n, a, [&](Index, const T* x, T* y) {
        T state[2] = {x[1], kPlain ? T(0) : x[kPlain ? 1 : 2]};
        device::update_vector<K, false, T>(factors, state, state + 1, x[0], LoadOne{}, StoreOne{});
        y[0] = state[0];
        if constexpr (!kPlain) y[1] = state[1];
      });
}

template <SgdKind K, class T>
__global__ void __launch_bounds__(device::kElementThreads) sgd_kernel(const StepRecord* step, CudaSgd<T> s) {
  if (stopped(step)) return;
  SgdArguments<T> g = s.g;
  g.lr = s.scalars.rate(step), g.grad_scale = s.scalars.scale();
  const device::SgdFactors<T> factors(g);
  update<K, int64_t>(factors, g, device::thread_in_grid(), device::threads_in_grid(), g.n);
}

template <SgdKind K, class T>
__global__ void __launch_bounds__(device::kElementThreads) sgd_spans_kernel(CudaSpans spans, CudaSgd<T> s) {
  if (stopped(spans.step)) return;
  SgdArguments<T> g = s.g;
  g.lr = s.scalars.rate(spans.step), g.grad_scale = s.scalars.scale();
  const device::SgdFactors<T> factors(g);
  for_parts(spans, [&](int64_t, const CudaSpan& span, int64_t first, int n) {
    g.param = element<T>(span.param, first), g.grad = element<T>(span.grad, first);
    g.velocity = K == SgdKind::kPlain ? nullptr : element<T>(span.state[0], first);
    update<K, int>(factors, g, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), n);
  });
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  return queue_sgd(call, queue, cuda_sgd<T>(call, gradient_of(call).as<const T>()));
}

template <class T>
int run_spans(const OpCall& call, const CudaQueue& queue, const CudaSpans& spans) noexcept {
  CudaSgd<T> s = cuda_sgd<T>(call, nullptr);
  s.scalars = step_scalars(spans);
  auto* const kernel = s.g.momentum == 0 ? sgd_spans_kernel<SgdKind::kPlain, T>
                       : s.g.nesterov    ? sgd_spans_kernel<SgdKind::kNesterov, T>
                                         : sgd_spans_kernel<SgdKind::kMomentum, T>;
  return launch_spans(queue, spans, kernel, s);
}

void fill(const OpCall& call, CudaSpan* span) noexcept { fill_span(call, {"velocity"}, span); }

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
    {.op = "sgd_update", .choose = choose, .spans = {fill, spans_by_real<run_spans<float>, run_spans<double>>}},
    {.op = "sgd", .choose = choose},
};
extern const size_t sgd_cuda_kernel_count = std::size(sgd_cuda_kernels);

}  // namespace gradring
