// The formulas are in update_vector.h, which the CPU's kernels use, too.
// Bytes per element: three reads (param, grad, v) and two writes (param, v) of sizeof(T), and one of each more for `centered` and
// for momentum. FLOPs per element: 8, centered 13, momentum 2 more, and a root and a division.
#include "cuda/device.h"
#include "ops/cuda_step.h"
#include "ops/rmsprop/update_vector.h"

namespace gradring {

namespace {

// Thread `me` of `all` updates its share of n elements.
template <bool kCentered, bool kMomentum, class Index, class T>
__device__ __forceinline__ void update(const device::RmspropFactors<T>& factors, const RmspropArguments<T>& g, Index me,
                                       Index all, Index n) {
  constexpr int kMean = 2, kVelocity = kCentered ? 3 : 2, kState = 2 + kCentered + kMomentum;
  device::Arrays<T> a{{g.param, g.v}, {g.param, g.v}};
  if constexpr (kCentered) a.in[kMean] = g.mean, a.out[kMean] = g.mean;
  if constexpr (kMomentum) a.in[kVelocity] = g.velocity, a.out[kVelocity] = g.velocity;
  a.in[kState] = g.grad;
  device::for_elements<kState + 1, kState, 1, Index>(me, all, n, a, [&](Index, const T* x, T* y) {
    GRADRING_UNROLL
    for (int k = 0; k < kState; ++k) y[k] = x[k];
    device::rmsprop_vector<kCentered, kMomentum, T>(factors, y, y + 1, y + (kCentered ? kMean : 0),
                                                    y + (kMomentum ? kVelocity : 0), x[kState], LoadOne{}, StoreOne{});
  });
}

template <bool kCentered, bool kMomentum, class T>
__global__ void __launch_bounds__(device::kElementThreads)
    rmsprop_kernel(const StepRecord* step, RmspropArguments<T> g, StepScalars scalars) {
  if (stopped(step)) return;
  const device::RmspropFactors<T> factors(g, scalars.rate(step), scalars.scale());
  update<kCentered, kMomentum, int64_t>(factors, g, device::thread_in_grid(), device::threads_in_grid(), g.n);
}

template <bool kCentered, bool kMomentum, class T>
__global__ void __launch_bounds__(device::kElementThreads)
    rmsprop_spans_kernel(CudaSpans spans, RmspropArguments<T> given, StepScalars scalars) {
  if (stopped(spans.step)) return;
  const device::RmspropFactors<T> factors(given, scalars.rate(spans.step), scalars.scale());
  for_parts(spans, [&](int64_t, const CudaSpan& span, int64_t first, int n) {
    RmspropArguments<T> g = given;
    g.param = element<T>(span.param, first), g.grad = element<T>(span.grad, first);
    g.v = element<T>(span.state[0], first);
    g.mean = kCentered ? element<T>(span.state[1], first) : nullptr;
    g.velocity = kMomentum ? element<T>(span.state[2], first) : nullptr;
    update<kCentered, kMomentum, int>(factors, g, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), n);
  });
}

template <class T>
RmspropArguments<T> arguments(const OpCall& call) noexcept {
  RmspropArguments<T> g;
  const Tensor& param = operand(call, "param");
  g.n = param.elements(), g.param = param.as<T>(), g.grad = gradient_of(call).as<const T>();
  g.v = operand(call, "v").as<T>();
  if (flag(call, "centered")) g.mean = operand(call, "mean").as<T>();
  if (real(call, "momentum") != 0) g.velocity = operand(call, "velocity").as<T>();
  g.alpha = real(call, "alpha"), g.eps = real(call, "eps"), g.momentum = real(call, "momentum");
  g.weight_decay = real(call, "weight_decay");
  return g;
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const RmspropArguments<T> g = arguments<T>(call);
  auto* const kernel = g.mean       ? g.velocity ? rmsprop_kernel<true, true, T> : rmsprop_kernel<true, false, T>
                             : g.velocity ? rmsprop_kernel<false, true, T>
                                    : rmsprop_kernel<false, false, T>;
  return launch_flat<T>(call, queue, g.n, kernel, g, step_scalars(call));
}

template <class T>
int run_spans(const OpCall& call, const CudaQueue& queue, const CudaSpans& spans) noexcept {
  const RmspropArguments<T> g = arguments<T>(call);
  auto* const kernel = g.mean ? g.velocity ? rmsprop_spans_kernel<true, true, T> : rmsprop_spans_kernel<true, false, T>
                       : g.velocity ? rmsprop_spans_kernel<false, true, T>
                                    : rmsprop_spans_kernel<false, false, T>;
  return launch_spans(queue, spans, kernel, g, step_scalars(spans));
}

void fill(const OpCall& call, CudaSpan* span) noexcept { fill_span(call, {"v", "mean", "velocity"}, span); }

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(
      call, {"param", "grad", "v", "mean", "velocity", "gradient", "clip", "weight", "lr", "finite", "bounded"});
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel rmsprop_cuda_kernels[] = {
    {.op = "rmsprop_update", .choose = choose, .spans = {fill, spans_by_real<run_spans<float>, run_spans<double>>}},
    {.op = "rmsprop", .choose = choose},
};
extern const size_t rmsprop_cuda_kernel_count = std::size(rmsprop_cuda_kernels);

}  // namespace gradring
