// linear, its vjp, and the products of a program's backward pass: the library computes the product, and our own kernel then
// passes over the result for bias and activation, or for the derivative of an activation and the column sums. Bytes of that
// pass, per element of the result: one read and one write of sizeof(T), and one more for pre or source. FLOPs: 2 m n k of each
// product; the pass has 2 per element, and those of the activation.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/cuda_columns.h"
#include "ops/linear/half_linear_cuda.h"
#include "ops/product_call_cuda.h"

namespace gradring {

namespace {

template <class T>
int forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& y = operand(call, "y");
  const MatrixView c = matrix_view(y);
  const CudaProduct p = product_of(matrix_view(operand(call, "x")), matrix_view(operand(call, "w")), c, kDtypesOf<T>);
  const int code =
      queue_product(call, queue, p, operand(call, "x").as<const T>(), operand(call, "w").as<const T>(), y.as<T>());
  if (code != 0) return code;
  const ProductEnd<T> end{
      p.m, p.n, y.as<T>(), c.leading, operand(call, "b").as<const T>(), operand(call, "pre").as<T>(), nullptr};
  return queue_activation(call, queue, activation_of(call), end);
}

size_t forward_scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  return workspace_of(queue) + (is_half(operand(call, "x")) ? half_forward_bytes(call) : 0);
}
size_t dw_scratch(const OpCall&, const CudaQueue& queue) noexcept { return workspace_of(queue); }

// The scratch memory has the workspace, then the dense gradient of the activation's input, then the groups' column sums.
template <class T>
int vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &dy = operand(call, "dy"), &x = operand(call, "x"), &w = operand(call, "w");
  const Tensor &dx = operand(call, "dx"), &dw = operand(call, "dw"), &db = operand(call, "db");
  const MatrixView xs = matrix_view(x), ws = matrix_view(w);
  const T* gradient = dy.as<const T>();
  char* scratch = static_cast<char*>(behind_workspace(queue));
  int code = 0;
  if (activation_of(call) != Activation::kNone) {
    ProductEnd<T> end;
    end.rows = xs.rows, end.columns = ws.columns, end.c = reinterpret_cast<T*>(scratch), end.ldc = ws.columns;
    end.source = operand(call, "y_or_pre").as<const T>();
    code = queue_derivative(call, queue, activation_of(call), end, gradient);
    gradient = end.c;
    scratch += aligned(static_cast<size_t>(xs.rows * ws.columns) * sizeof(T));
  }
  const MatrixView gs{xs.rows, ws.columns, ws.columns, false};
  if (code == 0 && db) code = queue_column_sums(call, queue, gs.rows, gs.columns, gradient, db.as<T>(), scratch);
  if (code == 0 && dx) {
    const CudaProduct p = product_of(gs, transposed(ws), matrix_view(dx), kDtypesOf<T>);
    code = queue_product(call, queue, p, gradient, w.as<const T>(), dx.as<T>());
  }
  if (code == 0 && dw) {
    const CudaProduct p = product_of(transposed(xs), gs, matrix_view(dw), kDtypesOf<T>);
    code = queue_product(call, queue, p, x.as<const T>(), gradient, dw.as<T>());
  }
  return code;
}

size_t vjp_scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& dy = operand(call, "dy");
  if (is_half(dy)) return workspace_of(queue) + half_vjp_bytes(call);
  const bool copies = activation_of(call) != Activation::kNone;
  const size_t sums = dy.dtype == Dtype::kFloat32 ? column_sums_bytes<float>(dy.rows(), dy.columns())
                                                  : column_sums_bytes<double>(dy.rows(), dy.columns());
  return workspace_of(queue) + (copies ? aligned(static_cast<size_t>(dy.elements()) * size_of(dy.dtype)) : 0) +
         (operand(call, "db") ? sums : 0);
}

template <class T>
int dx(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &dy = operand(call, "dy"), &w = operand(call, "w"), &result = operand(call, "dx"),
               &source = operand(call, "source");
  const MatrixView rows{dy.rows(), dy.columns(), dy.columns(), false};
  const MatrixView c{result.rows(), result.columns(), result.columns(), false};
  const CudaProduct p = product_of(rows, transposed(matrix_view(w)), c, kDtypesOf<T>);
  int code = queue_product(call, queue, p, dy.as<const T>(), w.as<const T>(), result.as<T>());
  if (code == 0 && source) {
    ProductEnd<T> end;
    end.rows = p.m, end.columns = p.n, end.c = result.as<T>(), end.ldc = p.n, end.source = source.as<const T>();
    code = queue_derivative(call, queue, activation_of(call), end, static_cast<const T*>(end.c));
  }
  const Tensor& sums = operand(call, "column_sums");
  if (code != 0 || !sums) return code;
  return queue_column_sums(call, queue, p.m, p.n, static_cast<const T*>(result.as<T>()), sums.as<T>(),
                           behind_workspace(queue));
}

size_t dx_scratch(const OpCall& call, const CudaQueue& queue) noexcept {
  if (is_half(operand(call, "dy"))) return workspace_of(queue) + half_dx_bytes(call);
  const Tensor& result = operand(call, "dx");
  if (!operand(call, "column_sums")) return workspace_of(queue);
  return workspace_of(queue) + (result.dtype == Dtype::kFloat32
                                    ? column_sums_bytes<float>(result.rows(), result.columns())
                                    : column_sums_bytes<double>(result.rows(), result.columns()));
}

template <class T>
int dw(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &dy = operand(call, "dy"), &result = operand(call, "dw");
  const MatrixView xs{x.rows(), x.columns(), x.columns(), false}, ys{dy.rows(), dy.columns(), dy.columns(), false};
  const CudaProduct p = product_of(transposed(xs), ys, {xs.columns, ys.columns, ys.columns, false}, kDtypesOf<T>);
  return queue_product(call, queue, p, x.as<const T>(), dy.as<const T>(), result.as<T>());
}

template <CudaRun kFloat, CudaRun kDouble, CudaRun kBfloat>
CudaRun choose(const OpCall& call) noexcept {
  // `parts` is memory that only the CPU's kernel uses, so ignore it here.
  const bool known =
      has_only(call, {"x", "w", "b", "y", "pre", "parts", "dy", "y_or_pre", "dx", "dw", "db", "source", "column_sums"});
  return known ? by_product_cuda<kFloat, kDouble, kBfloat>(call) : nullptr;
}

}  // namespace

extern const CudaKernel linear_cuda_kernels[] = {
    {.op = "linear", .choose = choose<forward<float>, forward<double>, half_forward>, .scratch = forward_scratch},
    {.op = "linear_vjp", .choose = choose<vjp<float>, vjp<double>, half_vjp>, .scratch = vjp_scratch},
    {.op = "linear_dx", .choose = choose<dx<float>, dx<double>, half_dx>, .scratch = dx_scratch},
    {.op = "linear_dw", .choose = choose<dw<float>, dw<double>, half_dw>, .scratch = dw_scratch},
};
extern const size_t linear_cuda_kernel_count = std::size(linear_cuda_kernels);

}  // namespace gradring
