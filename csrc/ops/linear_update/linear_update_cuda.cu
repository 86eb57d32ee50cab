// linear_dw_sgd and linear_dw_adam: the library's product into `dw`, then the update of the op that is fused.
// Bytes beyond those of the product: one write of sizeof(T) per element of dw, and those of the update, which finds a part of dw
// in the caches. FLOPs: 2 m n k of the product, and those of the update.
#include "cuda/device.h"
#include "ops/adam/adam_cuda.h"
#include "ops/product_call_cuda.h"
#include "ops/sgd/sgd_cuda.h"

namespace gradring {

namespace {

template <class T>
int product(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &x = operand(call, "x"), &dy = operand(call, "dy");
  const MatrixView xs{x.rows(), x.columns(), x.columns(), false}, ys{dy.rows(), dy.columns(), dy.columns(), false};
  const CudaProduct p = product_of(transposed(xs), ys, {xs.columns, ys.columns, ys.columns, false}, kDtypesOf<T>);
  return queue_product(call, queue, p, x.as<const T>(), dy.as<const T>(), operand(call, "dw").as<T>());
}

template <class T>
int with_sgd(const OpCall& call, const CudaQueue& queue) noexcept {
  const int code = product<T>(call, queue);
  return code != 0 ? code : queue_sgd(call, queue, cuda_sgd<T>(call, operand(call, "dw").as<const T>()));
}

template <class T>
int with_adam(const OpCall& call, const CudaQueue& queue) noexcept {
  const int code = product<T>(call, queue);
  return code != 0 ? code : queue_adam(call, queue, cuda_adam<T>(call, operand(call, "dw").as<const T>()));
}

size_t scratch(const OpCall&, const CudaQueue& queue) noexcept { return workspace_of(queue); }

template <CudaRun kFloat, CudaRun kDouble>
CudaRun choose(const OpCall& call) noexcept {
  const bool known =
      has_only(call, {"x", "dy", "param", "momentum", "m", "v", "vmax", "number", "lr", "finite", "bounded", "dw"});
  return known ? by_real_cuda<kFloat, kDouble>(call) : nullptr;
}

}  // namespace

extern const CudaKernel linear_update_cuda_kernels[] = {
    {.op = "linear_dw_sgd", .choose = choose<with_sgd<float>, with_sgd<double>>, .scratch = scratch},
    {.op = "linear_dw_adam", .choose = choose<with_adam<float>, with_adam<double>>, .scratch = scratch},
};
extern const size_t linear_update_cuda_kernel_count = std::size(linear_update_cuda_kernels);

}  // namespace gradring
