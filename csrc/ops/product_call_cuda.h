// Queues a product of matrices for a CUDA op: the library's call, the case of an inner dimension of 0, and the work after it.
// The library does not know the step record: after a fault it still writes its product, but never to a parameter. To be
// included after cuda/device.h and ops/cuda_call.h.
#pragma once

#include "ops/activation/activation_math.h"
#include "ops/cuda_call.h"
#include "ops/matrix_view.h"

namespace gradring {

template <class T>
constexpr ProductDtypes kDtypesOf = sizeof(T) == 8 ? ProductDtypes::kFloat64 : ProductDtypes::kFloat32;

inline CudaProduct product_of(const MatrixView& a, const MatrixView& b, const MatrixView& c,
                              ProductDtypes dtypes) noexcept {
  return {a.rows, b.columns, a.columns, a.leading, b.leading, c.leading, a.transposed, b.transposed, dtypes};
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    zero_rows_kernel(const StepRecord* step, T* c, int64_t rows, int64_t columns, int64_t leading) {
  if (stopped(step)) return;
  for (int64_t at = device::thread_in_grid(); at < rows * columns; at += device::threads_in_grid()) {
    c[at / columns * leading + at % columns] = device::narrow<T>(0);
  }
}

// The scratch memory of a call begins with the library's workspace.
inline size_t aligned(size_t bytes) noexcept { return (bytes + 255) / 256 * 256; }
inline size_t workspace_of(const CudaQueue& queue) noexcept {
  return queue.products ? aligned(queue.products->workspace_bytes()) : 0;
}
inline void* behind_workspace(const CudaQueue& queue) noexcept {
  return static_cast<char*>(queue.scratch) + workspace_of(queue);
}

template <class T>
int queue_product(const OpCall& call, const CudaQueue& queue, const CudaProduct& p, const void* a, const void* b,
                  T* c) noexcept {
  if (p.m == 0 || p.n == 0) return 0;
  if (p.k > 0)
    return queue.products ? queue.products->run(p, a, b, c, false, queue, queue.scratch) : cudaErrorNotSupported;
  const StepRecord* step = call.step;
  return LAUNCH(zero_rows_kernel<T>, dim3(blocks_for(p.m * p.n, queue.processors)), dim3(device::kElementThreads), 0,
                stream_of(queue), step, c, p.m, p.n, p.ldc);
}

// The same for operands of 16-bit floats, whose dtype is that of the call's first operand: the result c has it too, or is float32.
inline int queue_half_product(const OpCall& call, const CudaQueue& queue, const MatrixView& a, const void* a_data,
                              const MatrixView& b, const void* b_data, const Tensor& c) noexcept {
  const MatrixView result = matrix_view(c);
  const bool float16 = call[0].dtype == Dtype::kFloat16;
  if (is_narrow(c.dtype)) {  // zeros have the same bits in both
    return queue_product(call, queue,
                         product_of(a, b, result, float16 ? ProductDtypes::kFloat16 : ProductDtypes::kBfloat16), a_data,
                         b_data, c.as<__nv_bfloat16>());
  }
  const ProductDtypes dtypes = float16 ? ProductDtypes::kFloat16ToFloat32 : ProductDtypes::kBfloat16ToFloat32;
  return queue_product(call, queue, product_of(a, b, result, dtypes), a_data, b_data, c.as<float>());
}

// The work that follows a product of rows x columns: bias and activation, or the derivative of an activation.
template <class T>
struct ProductEnd {
  int64_t rows = 0, columns = 0;
  T* c = nullptr;  // the product, which is changed in place
  int64_t ldc = 0;
  const T* bias = nullptr;
  T* pre = nullptr;           // the activation's input; its rows are as far apart as those of c
  const T* source = nullptr;  // the source of the derivative; dense
};

template <bool kBlock, Activation A, class T>
__global__ void __launch_bounds__(device::kMostRowThreads, 1) activate_kernel(const StepRecord* step, ProductEnd<T> g) {
  using W = device::Wide<T>;
  if (stopped(step)) return;
  const device::RowTeam<kBlock> team;
  const int columns = static_cast<int>(g.columns);
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    T* const c = g.c + row * g.ldc;
    if (g.pre) {
      device::for_elements<1, 2, 2>(team.me, team.all, columns, device::Arrays<T>{{c}, {c, g.pre + row * g.ldc}},
                                    [&](int j, const W* v, W* y) {
                                      y[1] = g.bias ? v[0] + device::widen(g.bias[j]) : v[0];
                                      y[0] = device::activate<A, W>(y[1]);
                                    });
    } else {
      device::for_elements<1, 1, 4>(team.me, team.all, columns, device::Arrays<T>{{c}, {c}},
                                    [&](int j, const W* v, W* y) {
                                      y[0] = device::activate<A, W>(g.bias ? v[0] + device::widen(g.bias[j]) : v[0]);
                                    });
    }
  }
}

template <bool kBlock, Activation A, class T>
__global__ void __launch_bounds__(device::kMostRowThreads, 1)
    derivative_kernel(const StepRecord* step, ProductEnd<T> g, const T* dy) {
  using W = device::Wide<T>;
  if (stopped(step)) return;
  const device::RowTeam<kBlock> team;
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    const device::Arrays<T> a{{dy + row * g.columns, g.source + row * g.columns}, {g.c + row * g.columns}};
    device::for_elements<2, 1, 2>(team.me, team.all, static_cast<int>(g.columns), a,
                                  [&](int, const W* v, W* y) { y[0] = device::activate_backward<A, W>(v[0], v[1]); });
  }
}

template <template <bool, Activation, class> class Launcher, class T, class... A>
int by_activation(Activation kind, bool block, A&&... arguments) noexcept {
  switch (kind) {
#define GRADRING_CASE(K)                                               \
  case Activation::K:                                                  \
    return block ? Launcher<true, Activation::K, T>::run(arguments...) \
                 : Launcher<false, Activation::K, T>::run(arguments...);
    GRADRING_CASE(kNone)
    GRADRING_CASE(kRelu)
    GRADRING_CASE(kGelu)
    GRADRING_CASE(kSilu)
    GRADRING_CASE(kTanh)
    GRADRING_CASE(kSigmoid)
#undef GRADRING_CASE
    case Activation::kGeluErf: break;  // a product does not accept it
  }
  return cudaErrorInvalidValue;
}

template <bool kBlock, Activation A, class T>
struct ActivateLauncher {
  static int run(const OpCall& call, const CudaQueue& queue, const device::RowPlan& plan,
                 const ProductEnd<T>& g) noexcept {
    const StepRecord* step = call.step;
    return LAUNCH((activate_kernel<kBlock, A, T>), dim3(plan.blocks), dim3(plan.threads), 0, stream_of(queue), step, g);
  }
};
template <bool kBlock, Activation A, class T>
struct DerivativeLauncher {
  static int run(const OpCall& call, const CudaQueue& queue, const device::RowPlan& plan, const ProductEnd<T>& g,
                 const T* dy) noexcept {
    const StepRecord* step = call.step;
    return LAUNCH((derivative_kernel<kBlock, A, T>), dim3(plan.blocks), dim3(plan.threads), 0, stream_of(queue), step,
                  g, dy);
  }
};

// Computes pre = c + bias, and then c = activation(c + bias).
template <class T>
int queue_activation(const OpCall& call, const CudaQueue& queue, Activation kind, const ProductEnd<T>& g) noexcept {
  if (g.rows * g.columns == 0 || (kind == Activation::kNone && !g.bias && !g.pre)) return 0;
  const device::RowPlan plan = device::row_plan<T>(g.rows, g.columns, queue.processors, 0, false);
  return by_activation<ActivateLauncher, T>(kind, plan.block, call, queue, plan, g);
}

// Sets c to dy times the derivative at `source`; both are dense. dy may be c.
template <class T>
int queue_derivative(const OpCall& call, const CudaQueue& queue, Activation kind, const ProductEnd<T>& g,
                     const T* dy) noexcept {
  if (g.rows * g.columns == 0) return 0;
  const device::RowPlan plan = device::row_plan<T>(g.rows, g.columns, queue.processors, 0, false);
  return by_activation<DerivativeLauncher, T>(kind, plan.block, call, queue, plan, g, dy);
}

}  // namespace gradring
