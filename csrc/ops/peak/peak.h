// The processor's multiply-add rate, as the yardstick of the matrix product.
#pragma once

#include "gradring/export.h"

namespace gradring {

// float32 operations per second of `lanes` threads at once (a multiply-add counts as two), the median of a
// few measurements of independent register-to-register multiply-adds. Takes about 20 ms.
GRADRING_API double measure_peak_flops(int lanes);

}  // namespace gradring
