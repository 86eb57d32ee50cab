// Chooses a way for the shape, and adds up the column sums.
#include "ops/matmul/blocked.h"
#include "ops/matmul/matmul_kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <class T>
ScratchBytes scratch(const MatmulArguments<T>& g, int) noexcept {
  if (g.m <= 0 || g.n <= 0) return {};
  ScratchBytes bytes;
  bytes.per_lane = blocked_scratch(g);
  if (g.epilogue.column_sums) bytes.shared = static_cast<size_t>(make_plan(g, 1).row_tiles * g.n) * sizeof(T);
  return bytes;
}

template <class T>
int lanes(const MatmulArguments<T>& g, int available) noexcept {
  return double(g.m) * double(g.n) * double(g.k) < 262144 ? 1 : available;
}

// Adds the row tiles' sums in order.
template <class T>
void add_sums(const Lane& lane, const MatmulArguments<T>& g, const T* partial, int64_t tiles) noexcept {
  const Range columns = split(lane, g.n, kWidth<T>);
  for (int64_t j = columns.begin; j < columns.end; j += kWidth<T>) {
    const Tail<T> tail(smaller(kWidth<T>, g.n - j));
    Vec<T> sum = tail.load(partial + j);
    for (int64_t t = 1; t < tiles; ++t) sum += tail.load(partial + t * g.n + j);
    tail.store(g.epilogue.column_sums + j, sum);
  }
}

template <class T>
void run(const Lane& lane, const MatmulArguments<T>& g) noexcept {
  T* const out_sums = g.epilogue.column_sums;
  if (g.m <= 0 || g.n <= 0) {
    if (out_sums && lane.index == 0)
      for (int64_t j = 0; j < g.n; ++j) out_sums[j] = 0;
    return;
  }
  T* const partial = out_sums ? reinterpret_cast<T*>(lane.shared_scratch()) : nullptr;
  run_blocked(lane, g, partial);
  if (!partial) return;
  lane.barrier();
  add_sums(lane, g, partial, make_plan(g, 1).row_tiles);
}

}  // namespace

extern const MatmulKernels matmul_kernels;
const MatmulKernels matmul_kernels = {run<float>,      run<double>,  scratch<float>,
                                      scratch<double>, lanes<float>, lanes<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
