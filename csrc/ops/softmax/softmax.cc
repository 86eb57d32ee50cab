#include "ops/softmax/softmax.h"

#include "ops/softmax/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(softmax, SoftmaxArguments, softmax_kernel)
GRADRING_DEFINE_OP(softmax_vjp, SoftmaxVjpArguments, softmax_vjp_kernel)

int softmax_lanes(int64_t rows, int64_t columns, int lanes) noexcept {
  return lanes_worth(static_cast<double>(rows) * (5 + 0.4 * static_cast<double>(columns)), lanes);
}

}  // namespace gradring
