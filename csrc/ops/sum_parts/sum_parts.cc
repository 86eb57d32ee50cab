#include "ops/sum_parts/sum_parts.h"

#include "ops/sum_parts/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(sum_parts, SumPartsArguments, sum_parts_kernel)

}  // namespace gradring
