#include "ops/sgd/sgd.h"

#include "ops/sgd/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(sgd_update, SgdArguments, sgd_kernel)

int sgd_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.3, lanes); }

}  // namespace gradring
