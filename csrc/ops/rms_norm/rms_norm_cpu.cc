#include "ops/rms_norm/kernels.h"
#include "ops/simd/row_sums.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Returns 1 / sqrt(mean(x^2) + eps) of a row, in every element of the result.
template <class T>
GRADRING_INLINE Vec<T> row_scale(const T* x, int64_t columns, T eps) noexcept {
  const Vec<T> squares = sum_over<T>(
      columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        const Vec<T> v = load_up_to<T>(x + j, n);
        return v * v;
      });
  return T(1) / square_root<T>(squares * (T(1) / static_cast<T>(columns)) + eps);
}

template <class T, bool kWeight>
void rows_forward(const RmsNormArguments<T>& g, Range rows) noexcept {
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const T* x = g.x + i * g.columns;
    T* y = g.y + i * g.columns;
    const Vec<T> scale = row_scale<T>(x, g.columns, static_cast<T>(g.eps));
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          Vec<T> v = load_up_to<T>(x + j, n) * scale;
          if constexpr (kWeight) v = v * load_up_to<T>(g.weight + j, n);
          store_up_to<T>(y + j, v, n);
        });
  }
}

template <class T>
void run(const Lane& lane, const RmsNormArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  const Range rows = split(lane, g.rows, 4);
  return g.weight ? rows_forward<T, true>(g, rows) : rows_forward<T, false>(g, rows);
}

// Handles the rows of one block, in order. weight_sums (or null) receives the sums of dy xhat over these rows.
template <class T>
void block_vjp(const RmsNormVjpArguments<T>& g, int64_t begin, int64_t end, T* weight_sums) noexcept {
  if (weight_sums) set_zero<T>(weight_sums, g.columns);
  const T each = T(1) / static_cast<T>(g.columns);
  for (int64_t i = begin; i < end; ++i) {
    const T* x = g.x + i * g.columns;
    const T* dy = g.dy + i * g.columns;
    const Vec<T> scale = row_scale<T>(x, g.columns, static_cast<T>(g.eps));
    // One pass makes both sums: the one along the row, for dx, and the one over the rows, for dweight.
    const Vec<T> along = sum_over<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> slope = load_up_to<T>(dy + j, n) * (load_up_to<T>(x + j, n) * scale);
          if (weight_sums) store_up_to<T>(weight_sums + j, load_up_to<T>(weight_sums + j, n) + slope, n);
          return g.weight ? slope * load_up_to<T>(g.weight + j, n) : slope;
        });
    if (!g.dx) continue;
    const Vec<T> mean = along * each;
    T* dx = g.dx + i * g.columns;
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          Vec<T> d = load_up_to<T>(dy + j, n);
          if (g.weight) d = d * load_up_to<T>(g.weight + j, n);
          store_up_to<T>(dx + j, (d - load_up_to<T>(x + j, n) * scale * mean) * scale, n);
        });
  }
}

template <class T>
void run_vjp(const Lane& lane, const RmsNormVjpArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  const int64_t blocks = row_blocks(g.rows);
  if (blocks <= 1) {
    if (lane.index == 0) block_vjp<T>(g, 0, g.rows, g.dweight);
    return;
  }
  T* sums = g.dweight ? reinterpret_cast<T*>(lane.shared_scratch()) : nullptr;
  const Range mine = split(lane, blocks);
  for (int64_t b = mine.begin; b < mine.end; ++b) {
    const int64_t end = (b + 1) * kRowBlock;
    block_vjp<T>(g, b * kRowBlock, end < g.rows ? end : g.rows, sums ? sums + b * g.columns : nullptr);
  }
  if (!sums) return;
  lane.barrier();
  add_blocks<T>(lane, sums, blocks, g.columns, g.dweight);
}

}  // namespace

extern const RmsNormKernel rms_norm_kernel;
extern const RmsNormVjpKernel rms_norm_vjp_kernel;
const RmsNormKernel rms_norm_kernel = {run<float>, run<double>};
const RmsNormVjpKernel rms_norm_vjp_kernel = {run_vjp<float>, run_vjp<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
