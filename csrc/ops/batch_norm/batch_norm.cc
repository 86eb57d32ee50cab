#include "ops/batch_norm/batch_norm.h"

#include "ops/batch_norm/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(batch_norm, BatchNormArguments, batch_norm_kernel)
GRADRING_DEFINE_OP(batch_norm_vjp, BatchNormVjpArguments, batch_norm_vjp_kernel)
GRADRING_DEFINE_OP(batch_norm_update, BatchNormUpdateArguments, batch_norm_update_kernel)

namespace {

// The scratch memory has two numbers per block and column, and the two totals of each column.
size_t shared_bytes(int64_t rows, int64_t columns, size_t element) noexcept {
  return 2 * static_cast<size_t>(row_blocks(rows) + 1) * static_cast<size_t>(columns) * element;
}

}  // namespace

int batch_norm_lanes(int64_t rows, int64_t columns, int lanes) noexcept {
  return lanes_worth(static_cast<double>(rows) * (5 + 0.3 * static_cast<double>(columns)), lanes);
}

ScratchBytes batch_norm_scratch(int64_t rows, int64_t columns, size_t element, bool training) noexcept {
  return {static_cast<size_t>(columns) * element, training ? shared_bytes(rows, columns, element) : 0};
}

ScratchBytes batch_norm_vjp_scratch(int64_t rows, int64_t columns, size_t element) noexcept {
  // The vjp may have to compute the batch's moments again, before its own sums over the rows.
  return {4 * static_cast<size_t>(columns) * element, 2 * shared_bytes(rows, columns, element)};
}

}  // namespace gradring
