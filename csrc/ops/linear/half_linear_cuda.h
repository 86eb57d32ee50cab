// linear and its backward pass for operands of bfloat16 or float16. The library sums products in float32. Where work follows
// a product, it leaves its float32 sums in scratch memory, and one of these kernels finishes them: so biases, activations and
// column sums compute in float32 too, and each result is rounded once. To be included after cuda/device.h.
//
// Bytes per element: half_end_kernel reads 4 and writes the sizes of y and pre; half_gradient_kernel reads dy or the sum and the
// source, and writes the result, and 4 more for column sums. FLOPs per element: 2, and those of the activation.
#pragma once

#include "ops/cuda_columns.h"
#include "ops/product_call_cuda.h"

namespace gradring {

namespace {

using Bf16 = __nv_bfloat16;

inline Activation activation_of(const OpCall& call) noexcept {
  return static_cast<Activation>(integer(call, "activation"));
}
inline bool is_half(const Tensor& tensor) noexcept { return is_narrow(tensor.dtype); }
inline size_t floats(int64_t count) noexcept { return aligned(static_cast<size_t>(count) * sizeof(float)); }

// An array of bfloat16, of float16 or of float32.
struct Either {
  void* data = nullptr;
  Dtype dtype = Dtype::kFloat32;

  __device__ __forceinline__ float get(int64_t i) const {
    return dtype == Dtype::kBfloat16  ? device::widen(static_cast<const Bf16*>(data)[i])
           : dtype == Dtype::kFloat16 ? device::widen(static_cast<const __half*>(data)[i])
                                      : static_cast<const float*>(data)[i];
  }
  __device__ __forceinline__ void put(int64_t i, float value) const {
    if (dtype == Dtype::kBfloat16) {
      static_cast<Bf16*>(data)[i] = device::narrow<Bf16>(value);
    } else if (dtype == Dtype::kFloat16) {
      static_cast<__half*>(data)[i] = device::narrow<__half>(value);
    } else {
      static_cast<float*>(data)[i] = value;
    }
  }
};
inline Either either(const Tensor& tensor) noexcept { return {tensor.data, tensor.dtype}; }

// pre = c + bias, y = activation(pre). The sums c are dense.
struct HalfEnd {
  int64_t rows = 0, columns = 0;
  const float* c = nullptr;
  Either bias, y, pre;
  int64_t ldy = 0;  // of y and of pre
};

template <bool kBlock, Activation A>
__global__ void __launch_bounds__(device::kMostRowThreads, 1) half_end_kernel(const StepRecord* step, HalfEnd g) {
  if (stopped(step)) return;
  const device::RowTeam<kBlock> team;
  for (int64_t row = team.first; row < g.rows; row += team.step) {
    device::for_elements<1, 0, 4>(team.me, team.all, static_cast<int>(g.columns),
                                  device::Arrays<float>{{g.c + row * g.columns}, {}},
                                  [&](int j, const float* v, float*) {
                                    const float sum = g.bias.data ? v[0] + g.bias.get(j) : v[0];
                                    if (g.pre.data) g.pre.put(row * g.ldy + j, sum);
                                    g.y.put(row * g.ldy + j, device::activate<A, float>(sum));
                                  });
  }
}

// g = from * activation'(source); `sums` gets g too, before it is rounded. All arrays are dense; `sums` may be `from`.
// One block per processor is all that nvcc must promise: left alone, it keeps to 32 registers, and puts what does not fit
// into local memory.
template <Activation A, class T>
__global__ void __launch_bounds__(device::kElementThreads, 1)
    half_gradient_kernel(const StepRecord* step, int64_t n, const T* from, Either source, Either to, float* sums) {
  if (stopped(step)) return;
  device::for_elements<1, 0, 2, int64_t>(device::thread_in_grid(), device::threads_in_grid(), n,
                                         device::Arrays<T>{{from}, {}}, [&](int64_t i, const float* v, float*) {
                                           float value = v[0];
                                           if constexpr (A != Activation::kNone)
                                             value = device::activate_backward<A, float>(value, source.get(i));
                                           if (sums) sums[i] = value;
                                           to.put(i, value);
                                         });
}

template <bool kBlock, Activation A, class>
struct HalfEndLauncher {
  static int run(const OpCall& call, const CudaQueue& queue, const device::RowPlan& plan, const HalfEnd& g) noexcept {
    const StepRecord* step = call.step;
    return LAUNCH((half_end_kernel<kBlock, A>), dim3(plan.blocks), dim3(plan.threads), 0, stream_of(queue), step, g);
  }
};
template <bool kBlock, Activation A, class T>
struct HalfGradientLauncher {
  static int run(const OpCall& call, const CudaQueue& queue, int64_t n, const T* from, Either source, Either to,
                 float* sums) noexcept {
    const StepRecord* step = call.step;
    const unsigned blocks = device::element_blocks(n, device::kVectorWidth<T>, queue.processors);
    return LAUNCH((half_gradient_kernel<A, T>), dim3(blocks), dim3(device::kElementThreads), 0, stream_of(queue), step,
                  n, from, source, to, sums);
  }
};

template <class T>
int queue_half_gradient(const OpCall& call, const CudaQueue& queue, int64_t n, const T* from, const Tensor& source,
                        Either to, float* sums) noexcept {
  if (n == 0) return 0;
  return by_activation<HalfGradientLauncher, T>(activation_of(call), false, call, queue, n, from, either(source), to,
                                                sums);
}

template <class T>
int queue_half_sums(const OpCall& call, const CudaQueue& queue, int64_t rows, int64_t columns, const T* x,
                    const Tensor& sums, void* scratch) noexcept {
  if (sums.dtype == Dtype::kFloat16)
    return queue_column_sums(call, queue, rows, columns, x, sums.as<__half>(), scratch);
  return is_half(sums) ? queue_column_sums(call, queue, rows, columns, x, sums.as<Bf16>(), scratch)
                       : queue_column_sums(call, queue, rows, columns, x, sums.as<float>(), scratch);
}

// A dense matrix of float32 in scratch memory, as a tensor for queue_half_product.
struct DenseFloats {
  int64_t shape[2], strides[2];
  Tensor tensor;

  DenseFloats(void* data, int64_t rows, int64_t columns) noexcept
      : shape{rows, columns},
        strides{columns * static_cast<int64_t>(sizeof(float)), sizeof(float)},
        tensor{data, shape, strides, 2, Dtype::kFloat32} {}
  DenseFloats(const DenseFloats&) = delete;
  DenseFloats& operator=(const DenseFloats&) = delete;
};

inline bool has_end(const OpCall& call) noexcept {
  return activation_of(call) != Activation::kNone || operand(call, "b") || operand(call, "pre");
}

inline size_t half_forward_bytes(const OpCall& call) noexcept {
  return has_end(call) ? floats(operand(call, "y").elements()) : 0;
}

inline int half_forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &w = operand(call, "w"), &y = operand(call, "y");
  const MatrixView xs = matrix_view(x), ws = matrix_view(w), ys = matrix_view(y);
  if (!has_end(call)) return queue_half_product(call, queue, xs, x.data, ws, w.data, y);
  const DenseFloats c(behind_workspace(queue), ys.rows, ys.columns);
  const int code = queue_half_product(call, queue, xs, x.data, ws, w.data, c.tensor);
  if (code != 0 || y.elements() == 0) return code;
  const HalfEnd end{ys.rows,
                    ys.columns,
                    c.tensor.as<const float>(),
                    either(operand(call, "b")),
                    either(y),
                    either(operand(call, "pre")),
                    ys.leading};
  const device::RowPlan plan = device::row_plan<float>(ys.rows, ys.columns, queue.processors, 0, false);
  return by_activation<HalfEndLauncher, float>(activation_of(call), plan.block, call, queue, plan, end);
}

inline size_t half_dx_bytes(const OpCall& call) noexcept {
  const Tensor& result = operand(call, "dx");
  if (!operand(call, "source") && !operand(call, "column_sums")) return 0;
  return floats(result.elements()) +
         (operand(call, "column_sums") ? column_sums_bytes<float>(result.rows(), result.columns()) : 0);
}

inline int half_dx(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &dy = operand(call, "dy"), &w = operand(call, "w"), &result = operand(call, "dx"),
               &source = operand(call, "source"), &sums = operand(call, "column_sums");
  const MatrixView rows{dy.rows(), dy.columns(), dy.columns(), false}, ws = transposed(matrix_view(w));
  if (!source && !sums) return queue_half_product(call, queue, rows, dy.data, ws, w.data, result);
  const int64_t n = result.elements();
  char* const scratch = static_cast<char*>(behind_workspace(queue));
  const DenseFloats c(scratch, result.rows(), result.columns());
  auto* const values = c.tensor.as<float>();
  int code = queue_half_product(call, queue, rows, dy.data, ws, w.data, c.tensor);
  if (code == 0)
    code = queue_half_gradient<float>(call, queue, n, values, source, either(result), sums ? values : nullptr);
  if (code != 0 || !sums) return code;
  return queue_half_sums<float>(call, queue, result.rows(), result.columns(), values, sums, scratch + floats(n));
}

inline int half_dw(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &dy = operand(call, "dy");
  const MatrixView xs{x.rows(), x.columns(), x.columns(), false}, ys{dy.rows(), dy.columns(), dy.columns(), false};
  return queue_half_product(call, queue, transposed(xs), x.data, ys, dy.data, operand(call, "dw"));
}

// The scratch memory has the gradient of the activation's input, rounded; the same in float32, for db; and the groups' sums.
inline size_t half_vjp_bytes(const OpCall& call) noexcept {
  const Tensor &dy = operand(call, "dy"), &db = operand(call, "db");
  const bool copies = activation_of(call) != Activation::kNone;
  const int64_t n = dy.elements();
  return (copies ? aligned(static_cast<size_t>(n) * sizeof(Bf16)) : 0) + (copies && db ? floats(n) : 0) +
         (db ? column_sums_bytes<float>(dy.rows(), dy.columns()) : 0);
}

// T: the type of dy.
template <class T>
int half_vjp_of(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &dy = operand(call, "dy"), &x = operand(call, "x"), &w = operand(call, "w"), &db = operand(call, "db");
  const Tensor &dx = operand(call, "dx"), &dw = operand(call, "dw");
  const int64_t rows = dy.rows(), columns = dy.columns(), n = dy.elements();
  const MatrixView gs{rows, columns, columns, false};
  const auto* gradient = dy.as<const T>();
  char* scratch = static_cast<char*>(behind_workspace(queue));
  int code = 0;
  if (activation_of(call) != Activation::kNone) {
    const Either rounded{scratch, dy.dtype};
    scratch += aligned(static_cast<size_t>(n) * sizeof(T));
    float* const exact = db ? reinterpret_cast<float*>(scratch) : nullptr;
    if (db) scratch += floats(n);
    code = queue_half_gradient(call, queue, n, gradient, operand(call, "y_or_pre"), rounded, exact);
    gradient = static_cast<const T*>(rounded.data);
    if (code == 0 && db) code = queue_half_sums<float>(call, queue, rows, columns, exact, db, scratch);
  } else if (db) {
    code = queue_half_sums(call, queue, rows, columns, gradient, db, scratch);
  }
  if (code == 0 && dx) code = queue_half_product(call, queue, gs, gradient, transposed(matrix_view(w)), w.data, dx);
  if (code == 0 && dw) code = queue_half_product(call, queue, transposed(matrix_view(x)), x.data, gs, gradient, dw);
  return code;
}

inline int half_vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  return call[0].dtype == Dtype::kFloat16 ? half_vjp_of<__half>(call, queue) : half_vjp_of<Bf16>(call, queue);
}

}  // namespace

}  // namespace gradring
