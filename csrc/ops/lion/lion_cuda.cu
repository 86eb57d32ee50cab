// The formulas are in update_vector.h, which the CPU's kernels use, too.
// Bytes per element: three reads (param, grad, m) and two writes (param, m) of sizeof(T). FLOPs per element: 9.
#include "cuda/device.h"
#include "ops/cuda_step.h"
#include "ops/lion/update_vector.h"

namespace gradring {

namespace {

// Thread `me` of `all` updates its share of n elements.
template <class Index, class T>
__device__ __forceinline__ void update(const device::LionFactors<T>& factors, const LionArguments<T>& g, Index me,
                                       Index all, Index n) {
  const device::Arrays<T> a{{g.param, g.grad, g.m}, {g.param, g.m}};
  device::for_elements<3, 2, 1, Index>(me, all, n, a, [&](Index, const T* x, T* y) {
    y[0] = x[0], y[1] = x[2];
    device::lion_vector<T>(factors, y, y + 1, x[1], LoadOne{}, StoreOne{});
  });
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    lion_kernel(const StepRecord* step, LionArguments<T> g, StepScalars scalars) {
  if (stopped(step)) return;
  const device::LionFactors<T> factors(g, scalars.rate(step), scalars.scale());
  update<int64_t>(factors, g, device::thread_in_grid(), device::threads_in_grid(), g.n);
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    lion_spans_kernel(CudaSpans spans, LionArguments<T> given, StepScalars scalars) {
  if (stopped(spans.step)) return;
  const device::LionFactors<T> factors(given, scalars.rate(spans.step), scalars.scale());
  for_parts(spans, [&](int64_t, const CudaSpan& span, int64_t first, int n) {
    LionArguments<T> g = given;
    g.param = element<T>(span.param, first), g.grad = element<T>(span.grad, first);
    g.m = element<T>(span.state[0], first);
    update<int>(factors, g, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), n);
  });
}

template <class T>
LionArguments<T> arguments(const OpCall& call) noexcept {
  LionArguments<T> g;
  const Tensor& param = operand(call, "param");
  g.n = param.elements(), g.param = param.as<T>(), g.grad = gradient_of(call).as<const T>();
  g.m = operand(call, "m").as<T>();
  g.beta1 = real(call, "beta1"), g.beta2 = real(call, "beta2"), g.weight_decay = real(call, "weight_decay");
  return g;
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const LionArguments<T> g = arguments<T>(call);
  return launch_flat<T>(call, queue, g.n, lion_kernel<T>, g, step_scalars(call));
}

template <class T>
int run_spans(const OpCall& call, const CudaQueue& queue, const CudaSpans& spans) noexcept {
  return launch_spans(queue, spans, lion_spans_kernel<T>, arguments<T>(call), step_scalars(spans));
}

void fill(const OpCall& call, CudaSpan* span) noexcept { fill_span(call, {"m"}, span); }

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"param", "grad", "m", "gradient", "clip", "weight", "lr", "finite", "bounded"});
  return known ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel lion_cuda_kernels[] = {
    {.op = "lion_update", .choose = choose, .spans = {fill, spans_by_real<run_spans<float>, run_spans<double>>}},
    {.op = "lion", .choose = choose},
};
extern const size_t lion_cuda_kernel_count = std::size(lion_cuda_kernels);

}  // namespace gradring
