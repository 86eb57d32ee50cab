// Source: adam.h's formula and order of operations, as PyTorch arranges it.
// Bytes per element: 4 reads (param, grad, m, v) and 3 writes (param, m, v) of sizeof(T). FLOPs per element: 13, a root, a division.
#include "cuda/device.h"
#include "ops/adam/adam_cuda.h"

namespace gradring {

namespace {

using namespace device;

template <bool Decoupled, class T>
struct AdamBody {
  AdamCudaArguments<T> g;
  T beta1, rest1, beta2, rest2, step_size, root, eps, scale, decay, large;

  // Four loads that do not wait for each other.
  struct Loaded {
    Vector16<T> param, grad, m, v;
  };

  __device__ explicit AdamBody(const AdamCudaArguments<T>& arguments, const AdamCudaStep& step)
      : g(arguments),
        beta1(static_cast<T>(g.beta1)),
        rest1(static_cast<T>(1 - g.beta1)),
        beta2(static_cast<T>(g.beta2)),
        rest2(static_cast<T>(1 - g.beta2)),
        step_size(static_cast<T>(step.step_size)),
        root(static_cast<T>(step.root)),
        eps(static_cast<T>(g.eps)),
        scale(static_cast<T>(step.grad_scale)),
        decay(static_cast<T>(Decoupled ? 1 - step.lr * g.weight_decay : g.weight_decay)),
        large(static_cast<T>(sizeof(T) == 4 ? 1e18 : 1e153)) {}

  __device__ __forceinline__ void update(T& p, T d, T& m, T& v) const {
    d *= scale;
    if constexpr (Decoupled) {
      p *= decay;
    } else {
      d += p * decay;
    }
    m = m * beta1 + d * rest1;
    // Where d * d alone would overflow, (1 - beta2) d times d.
    const bool is_large = (d < 0 ? -d : d) > large;
    const T square = d * (is_large ? d * rest2 : d);
    v = v * beta2 + square * (is_large ? T(1) : rest2);
    p -= m * step_size / (sqrt(v) * root + eps);
  }

  __device__ Loaded load(int64_t i) const {
    return {load16(g.param + i), load16(g.grad + i), load16(g.m + i), load16(g.v + i)};
  }
  __device__ void finish(int64_t i, Loaded l) const {
    GRADRING_UNROLL
    for (int k = 0; k < kVectorWidth<T>; ++k) update(l.param.v[k], l.grad.v[k], l.m.v[k], l.v.v[k]);
    store16(g.param + i, l.param);
    store16(g.m + i, l.m);
    store16(g.v + i, l.v);
  }
  __device__ void one(int64_t i) const {
    T p = g.param[i], m = g.m[i], v = g.v[i];
    update(p, g.grad[i], m, v);
    g.param[i] = p;
    g.m[i] = m;
    g.v[i] = v;
  }
};

template <bool Decoupled, class T>
__global__ void __launch_bounds__(kElementThreads) adam_kernel(AdamCudaArguments<T> g) {
  if (g.step->fault != 0) return;
  const bool vectors =
      same_boundary<T>(g.param, g.grad) && same_boundary<T>(g.param, g.m) && same_boundary<T>(g.param, g.v);
  const int64_t head = vectors ? elements_to_boundary(g.param, g.n) : g.n;
  for_elements<kVectorWidth<T>, 1>(g.n, head, AdamBody<Decoupled, T>(g, *g.step));
}

}  // namespace

template <class T>
int adam_cuda(const AdamCudaArguments<T>& g, const CudaQueue& queue) {
  if (g.n == 0) return 0;
  const dim3 blocks(element_blocks(g.n, kVectorWidth<T>, queue.processors)), threads(kElementThreads);
  const auto stream = static_cast<cudaStream_t>(queue.stream);
  return g.decoupled ? LAUNCH((adam_kernel<true, T>), blocks, threads, 0, stream, g)
                     : LAUNCH((adam_kernel<false, T>), blocks, threads, 0, stream, g);
}

template int adam_cuda(const AdamCudaArguments<float>&, const CudaQueue&);
template int adam_cuda(const AdamCudaArguments<double>&, const CudaQueue&);

}  // namespace gradring
