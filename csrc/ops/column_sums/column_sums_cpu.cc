#include "ops/column_sums/kernels.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Lanes split the columns, so one lane makes each sum. It takes the rows in order, in four interleaved partial sums.
template <class T>
void run(const Lane& lane, const ColumnSumsArguments<T>& g) noexcept {
  const Range columns = split(lane, g.columns, 64);
  for_vectors<T>(
      columns.end - columns.begin, [&](int64_t offset, int64_t n) __attribute__((always_inline)) {
        const T* x = g.x + columns.begin + offset;
        Vec<T> sums[4] = {};
        int64_t i = 0;
        for (; i + 4 <= g.rows; i += 4) {
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) sums[k] += load_up_to<T>(x + (i + k) * g.ldx, n);
        }
        for (; i < g.rows; ++i) sums[0] += load_up_to<T>(x + i * g.ldx, n);
        store_up_to<T>(g.sums + columns.begin + offset, (sums[0] + sums[1]) + (sums[2] + sums[3]), n);
      });
}

}  // namespace

extern const ColumnSumsKernel column_sums_kernel;
const ColumnSumsKernel column_sums_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
