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

// One thread per block computes the powers, because powers of doubles are slow. `shared` has 4 elements.
template <class T>
__device__ __forceinline__ device::AdamVectorFactors<T> factors_of(const StepRecord* step, const AdamArguments<T>& g,
                                                                   const StepScalars& scalars, double* shared) {
  if (threadIdx.x == 0) {
    const double lr = scalars.rate(step);
    const int64_t t = scalars.count();
    shared[0] = lr;
    shared[1] = lr / (1 - power(g.beta1, t));
    shared[2] = 1 / sqrt(1 - power(g.beta2, t));
    shared[3] = scalars.scale();
  }
  __syncthreads();
  return device::AdamVectorFactors<T>(g, {shared[1], shared[2]}, shared[0], shared[3]);
}

// Thread `me` of `all` updates its share of n elements.
template <bool kDecoupled, bool kAmsgrad, class Index, class T>
__device__ __forceinline__ void update(const device::AdamVectorFactors<T>& factors, const AdamArguments<T>& g, Index me,
                                       Index all, Index n) {
  const device::Arrays<T> a{{g.param, g.grad, g.m, g.v, g.vmax}, {g.param, g.m, g.v, g.vmax}};
  device::for_elements<kAmsgrad ? 5 : 4, kAmsgrad ? 4 : 3, 1, Index>(me, all, n, a, [&](Index, const T* x, T* y) {
    T state[4] = {x[0], x[2], x[3], kAmsgrad ? x[kAmsgrad ? 4 : 0] : T(0)};
    device::adam_vector<kDecoupled, kAmsgrad, T>(factors, state, state + 1, state + 2, state + 3, x[1], LoadOne{},
                                                 StoreOne{});
    y[0] = state[0], y[1] = state[1], y[2] = state[2];
    if constexpr (kAmsgrad) y[3] = state[3];
  });
}

template <bool kDecoupled, bool kAmsgrad, class T>
__global__ void __launch_bounds__(device::kElementThreads) adam_kernel(const StepRecord* step, CudaAdam<T> s) {
  if (stopped(step)) return;
  SHARED_ARRAY(double, shared, 4);
  const device::AdamVectorFactors<T> factors = factors_of(step, s.g, s.scalars, shared);
  update<kDecoupled, kAmsgrad, int64_t>(factors, s.g, device::thread_in_grid(), device::threads_in_grid(), s.g.n);
}

template <bool kDecoupled, bool kAmsgrad, class T>
__global__ void __launch_bounds__(device::kElementThreads) adam_spans_kernel(CudaSpans spans, CudaAdam<T> s) {
  if (stopped(spans.step)) return;
  SHARED_ARRAY(double, shared, 4);
  const device::AdamVectorFactors<T> factors = factors_of(spans.step, s.g, s.scalars, shared);
  for_parts(spans, [&](int64_t, const CudaSpan& span, int64_t first, int n) {
    AdamArguments<T> g = s.g;
    g.param = element<T>(span.param, first), g.grad = element<T>(span.grad, first);
    g.m = element<T>(span.state[0], first), g.v = element<T>(span.state[1], first);
    g.vmax = kAmsgrad ? element<T>(span.state[2], first) : nullptr;
    update<kDecoupled, kAmsgrad, int>(factors, g, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), n);
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

template <bool kDecoupled, class T>
int launch(const CudaQueue& queue, const CudaSpans& spans, const CudaAdam<T>& s) noexcept {
  auto* const kernel = s.g.vmax ? adam_spans_kernel<kDecoupled, true, T> : adam_spans_kernel<kDecoupled, false, T>;
  return launch_spans(queue, spans, kernel, s);
}

template <class T>
int run_spans(const OpCall& call, const CudaQueue& queue, const CudaSpans& spans) noexcept {
  CudaAdam<T> s = cuda_adam<T>(call, nullptr);
  s.scalars = step_scalars(spans);
  return s.g.decoupled ? launch<true>(queue, spans, s) : launch<false>(queue, spans, s);
}

void fill(const OpCall& call, CudaSpan* span) noexcept { fill_span(call, {"m", "v", "vmax"}, span); }

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
    {.op = "adam_update", .choose = choose, .spans = {fill, spans_by_real<run_spans<float>, run_spans<double>>}},
    {.op = "adam", .choose = choose},
};
extern const size_t adam_cuda_kernel_count = std::size(adam_cuda_kernels);

}  // namespace gradring
