// Measures the processor's multiply-add rate, with which the matrix product is compared.
#pragma once

#include "gradring/export.h"

namespace gradring {

// Operations per second, in float32 or with `wide` in float64, of `lanes` threads together (a multiply-add counts as two), the median of
// a few measurements of independent register-to-register multiply-adds. It takes about 20 ms.
GRADRING_API double measure_peak_flops(int lanes, bool wide = false);

}  // namespace gradring
