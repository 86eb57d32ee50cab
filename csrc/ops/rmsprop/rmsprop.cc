#include "ops/rmsprop/rmsprop.h"

#include "ops/rmsprop/kernels.h"

namespace gradring {

GRADRING_DEFINE_CHOSEN_OP(rmsprop_update, RmspropArguments, rmsprop_kernel, GRADRING_CHOOSE_NARROW)

int rmsprop_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.5, lanes); }

}  // namespace gradring
