#include "ops/cuda_kernels.h"

#include <array>
#include <atomic>
#include <string>

#include "runtime/status.h"

namespace gradring {

namespace {

std::array<std::atomic<const CudaKernel*>, kMostOps> kernels;

// The op's number in the registry, or kMostOps.
size_t number_of(const OpSchema* op) noexcept {
  const auto ops = all_ops();
  for (size_t i = 0; i < ops.size(); ++i)
    if (ops[i] == op) return i;
  return kMostOps;
}

}  // namespace

void register_cuda_kernels(std::span<const CudaKernel> given) {
  for (const CudaKernel& kernel : given) {
    if (kernel.op != nullptr && find_schema(kernel.op) != nullptr && kernel.choose != nullptr) continue;
    const std::string name = kernel.op == nullptr ? "an op without a name" : kernel.op;
    throw Error(Code::kInvalidArgument, "[register_cuda_kernels] " + name +
                                            ": must be an op of the registry, with a way "
                                            "to choose its kernel");
  }
  for (const CudaKernel& kernel : given)
    kernels[number_of(find_schema(kernel.op))].store(&kernel, std::memory_order_release);
}

void remove_cuda_kernel(const OpSchema& op) noexcept {
  if (const size_t number = number_of(&op); number < kMostOps)
    kernels[number].store(nullptr, std::memory_order_release);
}

const CudaKernel* cuda_kernel(const OpSchema& op) noexcept {
  const size_t number = number_of(&op);
  return number < kMostOps ? kernels[number].load(std::memory_order_acquire) : nullptr;
}

}  // namespace gradring
