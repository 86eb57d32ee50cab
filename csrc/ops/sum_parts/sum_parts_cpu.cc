#include "ops/softmax/row.h"
#include "ops/sum_parts/kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// The rows are divided among the lanes, so that each lane writes one contiguous piece.
template <class T>
void run(const Lane& lane, const SumPartsArguments<T>& g) noexcept {
  const Range rows = split(lane, g.rows);
  const Vec<T> zero{};
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const int64_t row = i * g.columns;
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          Vec<T> v = load_up_to<T>(g.first + row + j, n) + load_up_to<T>(g.second + row + j, n);
          if (g.bias) v += load_up_to<T>(g.bias + j, n);
          if (g.relu) v = v < zero ? zero : v;
          store_up_to<T>(g.y + row + j, v, n);
        });
  }
}

}  // namespace

extern const SumPartsKernel sum_parts_kernel;
const SumPartsKernel sum_parts_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
