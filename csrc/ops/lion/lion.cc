#include "ops/lion/lion.h"

#include "ops/lion/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(lion_update, LionArguments, lion_kernel)

int lion_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.4, lanes); }

}  // namespace gradring
