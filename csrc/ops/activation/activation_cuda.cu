// The formulas are in activation_math.h, which the CPU's kernels use, too.
// Bytes per element: forward one read and one write of sizeof(T); vjp two reads and one write. FLOPs per element: about 20.
#include "cuda/device.h"
#include "ops/activation/activation_math.h"
#include "ops/cuda_call.h"

namespace gradring {

namespace {

using device::Wide;

template <Activation A, class T>
struct Forward {
  __device__ void operator()(int64_t, const Wide<T>* x, Wide<T>* y) const { y[0] = device::activate<A, Wide<T>>(x[0]); }
};

template <Activation A, class T>
struct Vjp {
  __device__ void operator()(int64_t, const Wide<T>* x, Wide<T>* y) const {
    y[0] = device::activate_backward<A, Wide<T>>(x[0], x[1]);
  }
};

Activation kind_of(const OpCall& call) noexcept {
  return integer(call, "approximate") != 0 ? Activation::kGeluErf
                                           : static_cast<Activation>(integer(call, "activation"));
}

template <template <Activation, class> class Formula, int kIn, class T>
int run_formula(const OpCall& call, const CudaQueue& queue, int64_t n, const device::Arrays<T>& a) noexcept {
  switch (kind_of(call)) {
    case Activation::kNone: return run_elements<kIn, 1>(call, queue, n, a, Formula<Activation::kNone, T>{});
    case Activation::kRelu: return run_elements<kIn, 1>(call, queue, n, a, Formula<Activation::kRelu, T>{});
    case Activation::kGelu: return run_elements<kIn, 1>(call, queue, n, a, Formula<Activation::kGelu, T>{});
    case Activation::kSilu: return run_elements<kIn, 1>(call, queue, n, a, Formula<Activation::kSilu, T>{});
    case Activation::kTanh: return run_elements<kIn, 1>(call, queue, n, a, Formula<Activation::kTanh, T>{});
    case Activation::kSigmoid: return run_elements<kIn, 1>(call, queue, n, a, Formula<Activation::kSigmoid, T>{});
    case Activation::kGeluErf: return run_elements<kIn, 1>(call, queue, n, a, Formula<Activation::kGeluErf, T>{});
  }
  return cudaErrorInvalidValue;
}

template <class T>
int forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  return run_formula<Forward, 1, T>(call, queue, x.elements(), {{x.as<const T>()}, {operand(call, "y").as<T>()}});
}

template <class T>
int vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& dy = operand(call, "dy");
  return run_formula<Vjp, 2, T>(
      call, queue, dy.elements(),
      {{dy.as<const T>(), operand(call, "source").as<const T>()}, {operand(call, "dx").as<T>()}});
}

}  // namespace

extern const CudaKernel activation_cuda_kernels[] = {
    {.op = "activation", .choose = by_real_cuda<forward<float>, forward<double>>},
    {.op = "activation_vjp", .choose = by_real_cuda<vjp<float>, vjp<double>>},
};
extern const size_t activation_cuda_kernel_count = std::size(activation_cuda_kernels);

}  // namespace gradring
