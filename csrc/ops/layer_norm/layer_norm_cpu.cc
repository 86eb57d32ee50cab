#include "ops/layer_norm/kernels.h"
#include "ops/simd/row_sums.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Computes a row's mean and 1 / sqrt(variance + eps), each repeated in every element of a vector.
template <class T>
struct Moments {
  Vec<T> mean, scale;
};

template <class T>
GRADRING_INLINE Moments<T> moments(const T* x, int64_t columns, T eps) noexcept {
  const T each = T(1) / static_cast<T>(columns);
  const Vec<T> mean =
      sum_over<T>(
          columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) { return load_up_to<T>(x + j, n); }) *
      each;
  const Vec<T> variance = sum_over<T>(
                              columns,
                              [&](int64_t j, int64_t n) __attribute__((always_inline)) {
                                const Vec<T> d = keep_first<T>(load_up_to<T>(x + j, n) - mean, n);
                                return d * d;
                              }) *
                          each;
  return {mean, T(1) / square_root<T>(variance + eps)};
}

template <class T, bool kWeight, bool kBias>
void rows_forward(const LayerNormArguments<T>& g, Range rows) noexcept {
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const T* x = g.x + i * g.columns;
    T* y = g.y + i * g.columns;
    const Moments<T> m = moments<T>(x, g.columns, static_cast<T>(g.eps));
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          Vec<T> v = (load_up_to<T>(x + j, n) - m.mean) * m.scale;
          if constexpr (kWeight) v = v * load_up_to<T>(g.weight + j, n);
          if constexpr (kBias) v = v + load_up_to<T>(g.bias + j, n);
          store_up_to<T>(y + j, v, n);
        });
  }
}

template <class T>
void run(const Lane& lane, const LayerNormArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  const Range rows = split(lane, g.rows, 4);
  if (g.weight) return g.bias ? rows_forward<T, true, true>(g, rows) : rows_forward<T, true, false>(g, rows);
  return g.bias ? rows_forward<T, false, true>(g, rows) : rows_forward<T, false, false>(g, rows);
}

// Handles the rows of one block, in order. weight_sums and bias_sums (or null) receive the sums over these rows.
template <class T>
void block_vjp(const LayerNormVjpArguments<T>& g, int64_t begin, int64_t end, T* weight_sums, T* bias_sums) noexcept {
  if (weight_sums) set_zero<T>(weight_sums, g.columns);
  if (bias_sums) set_zero<T>(bias_sums, g.columns);
  const T each = T(1) / static_cast<T>(g.columns);
  for (int64_t i = begin; i < end; ++i) {
    const T* x = g.x + i * g.columns;
    const T* dy = g.dy + i * g.columns;
    const Moments<T> m = moments<T>(x, g.columns, static_cast<T>(g.eps));
    // One pass makes all sums: those over the row, for dx, and those over the rows, for dweight and dbias.
    Vec<T> along{};
    const Vec<T> total = sum_over<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> d = load_up_to<T>(dy + j, n);
          const Vec<T> slope = d * ((load_up_to<T>(x + j, n) - m.mean) * m.scale);
          if (weight_sums) store_up_to<T>(weight_sums + j, load_up_to<T>(weight_sums + j, n) + slope, n);
          if (bias_sums) store_up_to<T>(bias_sums + j, load_up_to<T>(bias_sums + j, n) + d, n);
          if (!g.weight) {
            along += slope;
            return d;
          }
          const Vec<T> w = load_up_to<T>(g.weight + j, n);
          along += slope * w;
          return d * w;
        });
    if (!g.dx) continue;
    const Vec<T> mean_g = total * each, mean_gx = horizontal_sum<T>(along) * each;
    T* dx = g.dx + i * g.columns;
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          Vec<T> d = load_up_to<T>(dy + j, n);
          if (g.weight) d = d * load_up_to<T>(g.weight + j, n);
          const Vec<T> hat = (load_up_to<T>(x + j, n) - m.mean) * m.scale;
          store_up_to<T>(dx + j, (d - mean_g - hat * mean_gx) * m.scale, n);
        });
  }
}

template <class T>
void run_vjp(const Lane& lane, const LayerNormVjpArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  const int64_t blocks = row_blocks(g.rows);
  if (blocks == 1) {
    if (lane.index == 0) block_vjp<T>(g, 0, g.rows, g.dweight, g.dbias);
    return;
  }
  const bool sums = g.dweight || g.dbias;
  T* weight_blocks = sums ? reinterpret_cast<T*>(lane.shared_scratch()) : nullptr;
  T* bias_blocks = sums ? weight_blocks + blocks * g.columns : nullptr;
  const Range mine = split(lane, blocks);
  for (int64_t b = mine.begin; b < mine.end; ++b) {
    const int64_t end = (b + 1) * kRowBlock;
    block_vjp<T>(g, b * kRowBlock, end < g.rows ? end : g.rows, g.dweight ? weight_blocks + b * g.columns : nullptr,
                 g.dbias ? bias_blocks + b * g.columns : nullptr);
  }
  if (!sums) return;
  lane.barrier();
  if (g.dweight) add_blocks<T>(lane, weight_blocks, blocks, g.columns, g.dweight);
  if (g.dbias) add_blocks<T>(lane, bias_blocks, blocks, g.columns, g.dbias);
}

}  // namespace

extern const LayerNormKernel layer_norm_kernel;
extern const LayerNormVjpKernel layer_norm_vjp_kernel;
const LayerNormKernel layer_norm_kernel = {run<float>, run<double>};
const LayerNormVjpKernel layer_norm_vjp_kernel = {run_vjp<float>, run_vjp<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
