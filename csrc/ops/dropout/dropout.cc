#include "ops/dropout/dropout.h"

#include "ops/dropout/dropout_key.h"
#include "ops/dropout/kernels.h"
#include "runtime/philox.h"

namespace gradring {

DropoutKey dropout_key(uint64_t seed, uint32_t layer, uint32_t epoch, double p) noexcept {
  const PhiloxWords words =
      philox({layer, epoch, 0x64726f70, 0}, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const int32_t threshold = p >= 1 ? 65536 : p > 0 ? static_cast<int32_t>(p * 65536 + 0.5) : 0;
  const double keep = (65536 - threshold) / 65536.0;
  return {words[0], words[1], threshold, keep > 0 ? 1 / keep : 0.0};
}

GRADRING_DEFINE_OP(dropout, DropoutArguments, dropout_kernel)

int dropout_lanes(int64_t rows, int64_t columns, int lanes) noexcept {
  return lanes_worth(static_cast<double>(rows) * static_cast<double>(columns) * 0.5, lanes);
}

}  // namespace gradring
