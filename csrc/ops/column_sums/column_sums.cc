#include "ops/column_sums/column_sums.h"

#include "ops/column_sums/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(column_sums, ColumnSumsArguments, column_sums_kernel)

int column_sums_lanes(int64_t rows, int64_t columns, int lanes) noexcept {
  return lanes_worth(static_cast<double>(rows) * static_cast<double>(columns) * 0.1, lanes);
}

}  // namespace gradring
