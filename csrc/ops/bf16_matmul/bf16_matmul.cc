#include "ops/bf16_matmul/bf16_matmul.h"

#include "ops/bf16_matmul/kernels.h"

namespace gradring {

ScratchBytes bf16_matmul_scratch(const Bf16MatmulArguments& arguments, int lanes) noexcept {
  if (arguments.m <= 0 || arguments.n <= 0) return {};
  return GRADRING_KERNELS(bf16_matmul_kernels).scratch(arguments, lanes);
}

int bf16_matmul_lanes(const Bf16MatmulArguments& g, int available) noexcept {
  // Each `worth` multiply-adds, which take a few microseconds, justify another lane. A product with a single row is limited by
  // the memory that holds B.
  const double worth = g.m == 1 ? 80000.0 : 131072.0;
  const double most = static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) / worth;
  return most >= available ? available : most < 2 ? 1 : static_cast<int>(most);
}

void bf16_matmul(const Lane& lane, const Bf16MatmulArguments& arguments) noexcept {
  GRADRING_KERNELS(bf16_matmul_kernels).run(lane, arguments);
}

}  // namespace gradring
