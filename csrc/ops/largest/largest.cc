#include "ops/largest/largest.h"

#include "ops/largest/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(largest, LargestArguments, largest_kernel)

}  // namespace gradring
