// Source: adam.h's formula and order of operations, as PyTorch arranges it.
// Bytes per element: 4 reads (param, grad, m, v) and 3 writes (param, m, v) of sizeof(T). FLOPs per element: 13, a root, a division.
#include "cuda/device.h"
#include "ops/adam/adam.h"
#include "ops/cuda_call.h"
#include "ops/cuda_step.h"
#include "ops/math/math.h"

namespace gradring {

namespace {

template <class T>
struct Adam {
  AdamArguments<T> g;
  StepScalars scalars;
};

template <bool kDecoupled, class T>
__global__ void __launch_bounds__(device::kElementThreads) adam_kernel(const StepRecord* step, Adam<T> s) {
  if (stopped(step)) return;
  // One thread per block computes the powers, because powers of doubles are slow.
  SHARED_ARRAY(double, shared, 4);
  if (threadIdx.x == 0) {
    const double lr = s.scalars.rate(), t = static_cast<double>(s.scalars.count());
    shared[0] = lr;
    shared[1] = lr / (1 - pow(s.g.beta1, t));
    shared[2] = 1 / sqrt(1 - pow(s.g.beta2, t));
    shared[3] = s.scalars.scale();
  }
  __syncthreads();
  const AdamArguments<T>& g = s.g;
  const T beta1 = static_cast<T>(g.beta1), rest1 = static_cast<T>(1 - g.beta1);
  const T beta2 = static_cast<T>(g.beta2), rest2 = static_cast<T>(1 - g.beta2);
  const T step_size = static_cast<T>(shared[1]), root = static_cast<T>(shared[2]);
  const T eps = static_cast<T>(g.eps), scale = static_cast<T>(shared[3]);
  const T decay = static_cast<T>(kDecoupled ? 1 - shared[0] * g.weight_decay : g.weight_decay);
  const T large = static_cast<T>(sizeof(T) == 4 ? 1e18 : 1e153);
  const device::Arrays<T> a{{g.param, g.grad, g.m, g.v}, {g.param, g.m, g.v}};
  device::for_elements<4, 3, 1, int64_t>(device::thread_in_grid(), device::threads_in_grid(), g.n, a,
                                         [&](int64_t, const T* x, T* y) {
                                           T p = x[0], d = x[1] * scale;
                                           if constexpr (kDecoupled) {
                                             p *= decay;
                                           } else {
                                             d += p * decay;
                                           }
                                           const T m = x[2] * beta1 + d * rest1;
                                           // Where d * d would overflow, compute ((1 - beta2) d) d instead.
                                           const bool is_large = device::abs<T>(d) > large;
                                           const T square = d * (is_large ? d * rest2 : d);
                                           const T v = x[3] * beta2 + square * (is_large ? T(1) : rest2);
                                           y[0] = p - m * step_size / (device::square_root<T>(v) * root + eps);
                                           y[1] = m;
                                           y[2] = v;
                                         });
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  Adam<T> s;
  const Tensor &param = operand(call, "param"), &grad = operand(call, "grad"), &gradient = operand(call, "gradient");
  s.g.n = param.elements(), s.g.param = param.as<T>(), s.g.grad = (grad ? grad : gradient).template as<const T>();
  s.g.m = operand(call, "m").as<T>(), s.g.v = operand(call, "v").as<T>();
  s.g.beta1 = real(call, "beta1"), s.g.beta2 = real(call, "beta2"), s.g.eps = real(call, "eps");
  s.g.weight_decay = real(call, "weight_decay"), s.g.decoupled = flag(call, "decoupled");
  s.scalars = step_scalars(call);
  if (s.g.n == 0) return 0;
  const dim3 blocks(device::element_blocks(s.g.n, device::kVectorWidth<T>, queue.processors));
  const dim3 threads(device::kElementThreads);
  const StepRecord* step = call.step;
  return s.g.decoupled ? LAUNCH((adam_kernel<true, T>), blocks, threads, 0, stream_of(queue), step, s)
                       : LAUNCH((adam_kernel<false, T>), blocks, threads, 0, stream_of(queue), step, s);
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known =
      has_only(call, {"param", "grad", "m", "v", "gradient", "clip", "weight", "number", "lr", "finite", "bounded"});
  // Refuse a parameter group's own learning rate, because it is not in device memory.
  return known && integer(call, "rate") == 0 ? by_real_cuda<run<float>, run<double>>(call) : nullptr;
}

}  // namespace

extern const CudaKernel adam_cuda_kernels[] = {
    {.op = "adam_update", .choose = choose},
    {.op = "adam", .choose = choose},
};
extern const size_t adam_cuda_kernel_count = std::size(adam_cuda_kernels);

}  // namespace gradring
