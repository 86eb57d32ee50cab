// matmul: the library computes the product. Bytes: each operand once, if the caches hold a tile's operands. FLOPs: 2 m
// n k.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/product_call_cuda.h"

namespace gradring {

namespace {

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  MatrixView a = matrix_view(operand(call, "a")), b = matrix_view(operand(call, "b"));
  if (flag(call, "trans_a")) a = transposed(a);
  if (flag(call, "trans_b")) b = transposed(b);
  const CudaProduct p = product_of(a, b, matrix_view(operand(call, "out")), kDtypesOf<T>);
  return queue_product(call, queue, p, operand(call, "a").as<const T>(), operand(call, "b").as<const T>(),
                       operand(call, "out").as<T>());
}

int run_half(const OpCall& call, const CudaQueue& queue) noexcept {
  MatrixView a = matrix_view(operand(call, "a")), b = matrix_view(operand(call, "b"));
  if (flag(call, "trans_a")) a = transposed(a);
  if (flag(call, "trans_b")) b = transposed(b);
  return queue_half_product(call, queue, a, operand(call, "a").data, b, operand(call, "b").data, operand(call, "out"));
}

size_t scratch(const OpCall&, const CudaQueue& queue) noexcept { return workspace_of(queue); }

CudaRun choose(const OpCall& call) noexcept {
  return has_only(call, {"a", "b", "out"}) ? by_product_cuda<run<float>, run<double>, run_half>(call) : nullptr;
}

}  // namespace

extern const CudaKernel matmul_cuda_kernels[] = {{.op = "matmul", .choose = choose, .scratch = scratch}};
extern const size_t matmul_cuda_kernel_count = std::size(matmul_cuda_kernels);

}  // namespace gradring
