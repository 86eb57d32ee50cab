#include "ops/batch_norm/kernels.h"
#include "ops/simd/row_sums.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Calls step(j, n) for each vector of columns j..j+n in a lane's share of the columns.
template <class T, class Step>
GRADRING_INLINE void for_own_columns(const Lane& lane, int64_t columns, Step step) noexcept {
  const Range mine = split(lane, columns, 64 / static_cast<int64_t>(sizeof(T)));
  for_vectors<T>(
      mine.end - mine.begin, [&](int64_t j, int64_t n) __attribute__((always_inline)) { step(mine.begin + j, n); });
}

template <class T>
GRADRING_INLINE Range block_rows(int64_t block, int64_t rows) noexcept {
  const int64_t end = (block + 1) * kRowBlock;
  return {block * kRowBlock, end < rows ? end : rows};
}

// Sets sums[j] to the sum over the rows of term(row, j, n). It takes four rows at a time, and adds their terms in pairs.
template <class T, class Term>
GRADRING_INLINE void sum_rows(Range rows, int64_t columns, T* sums, Term term) noexcept {
  set_zero<T>(sums, columns);
  int64_t i = rows.begin;
  for (; i + 4 <= rows.end; i += 4) {
    for_vectors<T>(
        columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> four = (term(i, j, n) + term(i + 1, j, n)) + (term(i + 2, j, n) + term(i + 3, j, n));
          store_up_to<T>(sums + j, load_up_to<T>(sums + j, n) + four, n);
        });
  }
  for (; i < rows.end; ++i) {
    for_vectors<T>(
        columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          store_up_to<T>(sums + j, load_up_to<T>(sums + j, n) + term(i, j, n), n);
        });
  }
}

// The moments of the rows of one block: their mean, and the sum of the squared differences from it.
template <class T>
void block_moments(const T* x, Range rows, int64_t columns, T* mean, T* squares) noexcept {
  const T each = T(1) / static_cast<T>(rows.end - rows.begin);
  sum_rows<T>(
      rows, columns, mean, [&](int64_t i, int64_t j, int64_t n) __attribute__((always_inline)) {
        return load_up_to<T>(x + i * columns + j, n);
      });
  for_vectors<T>(
      columns, [&](int64_t j, int64_t n)
                   __attribute__((always_inline)) { store_up_to<T>(mean + j, load_up_to<T>(mean + j, n) * each, n); });
  sum_rows<T>(
      rows, columns, squares, [&](int64_t i, int64_t j, int64_t n) __attribute__((always_inline)) {
        const Vec<T> d = load_up_to<T>(x + i * columns + j, n) - load_up_to<T>(mean + j, n);
        return d * d;
      });
}

// Moves running numbers towards those of a batch. The variance of a batch gets Bessel's correction.
template <class T>
GRADRING_INLINE void move_running(T* running, Vec<T> batch, T momentum, int64_t n) noexcept {
  store_up_to<T>(running, load_up_to<T>(running, n) * (T(1) - momentum) + batch * momentum, n);
}

template <class T>
GRADRING_INLINE T bessel(int64_t rows) noexcept {
  return rows > 1 ? static_cast<T>(rows) / static_cast<T>(rows - 1) : T(1);
}

// Writes the mean and the variance of each column of x. `blocks` has room for two numbers per block and column.
// Ends with a barrier.
template <class T>
void moments(const Lane& lane, const T* x, int64_t rows, int64_t columns, T* blocks, T* mean, T* variance) noexcept {
  const int64_t count = row_blocks(rows);
  const Range mine = split(lane, count);
  for (int64_t b = mine.begin; b < mine.end; ++b) {
    T* block = blocks + 2 * b * columns;
    block_moments<T>(x, block_rows<T>(b, rows), columns, block, block + columns);
  }
  if (lane.count > 1) lane.barrier();
  const T all = static_cast<T>(rows);
  for_own_columns<T>(
      lane, columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        Vec<T> center = load_up_to<T>(blocks + j, n);
        Vec<T> squares = load_up_to<T>(blocks + columns + j, n);
        for (int64_t b = 1; b < count; ++b) {
          const Range block = block_rows<T>(b, rows);
          const T before = static_cast<T>(block.begin), after = static_cast<T>(block.end);
          const T part = (after - before) / after;
          const Vec<T> apart = load_up_to<T>(blocks + 2 * b * columns + j, n) - center;
          center += apart * part;
          squares += load_up_to<T>(blocks + (2 * b + 1) * columns + j, n) + apart * apart * (before * part);
        }
        store_up_to<T>(mean + j, center, n);
        store_up_to<T>(variance + j, squares * (T(1) / all), n);
      });
  if (lane.count > 1) lane.barrier();
}

// 1 / sqrt(variance + eps)
template <class T>
GRADRING_INLINE Vec<T> scale_of(const T* variance, T eps, int64_t n) noexcept {
  return T(1) / square_root<T>(load_up_to<T>(variance, n) + eps);
}

template <class T>
GRADRING_INLINE Vec<T> scaled(Vec<T> v, const T* weight, int64_t j, int64_t n) noexcept {
  return weight ? v * load_up_to<T>(weight + j, n) : v;
}

template <class T>
void run(const Lane& lane, const BatchNormArguments<T>& g) noexcept {
  if (g.columns == 0 || g.rows == 0) return;
  const T* mean = g.running_mean;
  const T* variance = g.running_var;
  if (g.training) {
    T* const own = reinterpret_cast<T*>(lane.shared_scratch());
    mean = own, variance = own + g.columns;
    moments<T>(lane, g.x, g.rows, g.columns, own + 2 * g.columns, own, own + g.columns);
    const T momentum = static_cast<T>(g.momentum), correction = bessel<T>(g.rows);
    for_own_columns<T>(
        lane, g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> m = load_up_to<T>(mean + j, n), v = load_up_to<T>(variance + j, n);
          if (g.mean) store_up_to<T>(g.mean + j, m, n);
          if (g.variance) store_up_to<T>(g.variance + j, v, n);
          if (g.running_mean) move_running<T>(g.running_mean + j, m, momentum, n);
          if (g.running_var) move_running<T>(g.running_var + j, v * correction, momentum, n);
        });
  }
  T* const factor = reinterpret_cast<T*>(lane.scratch());
  for_vectors<T>(
      g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        const Vec<T> r = scale_of<T>(variance + j, static_cast<T>(g.eps), n);
        store_up_to<T>(factor + j, scaled<T>(r, g.weight, j, n), n);
      });
  const Range rows = split(lane, g.rows, 4);
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const T* x = g.x + i * g.columns;
    T* y = g.y + i * g.columns;
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> centered = load_up_to<T>(x + j, n) - load_up_to<T>(mean + j, n);
          Vec<T> v = centered * load_up_to<T>(factor + j, n);
          if (g.bias) v = v + load_up_to<T>(g.bias + j, n);
          store_up_to<T>(y + j, v, n);
        });
  }
}

// `sums` receives the sums of dy over a block's rows, and `slopes` those of dy (x - mean).
template <class T>
void block_sums(const BatchNormVjpArguments<T>& g, Range rows, const T* mean, T* sums, T* slopes) noexcept {
  sum_rows<T>(
      rows, g.columns, slopes, [&](int64_t i, int64_t j, int64_t n) __attribute__((always_inline)) {
        const int64_t at = i * g.columns + j;
        return load_up_to<T>(g.dy + at, n) * (load_up_to<T>(g.x + at, n) - load_up_to<T>(mean + j, n));
      });
  // The block of dy is in the cache now.
  sum_rows<T>(
      rows, g.columns, sums, [&](int64_t i, int64_t j, int64_t n) __attribute__((always_inline)) {
        return load_up_to<T>(g.dy + i * g.columns + j, n);
      });
}

template <class T>
void run_vjp(const Lane& lane, const BatchNormVjpArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  if (g.rows == 0) {
    if (lane.index != 0) return;
    if (g.dweight) set_zero<T>(g.dweight, g.columns);
    if (g.dbias) set_zero<T>(g.dbias, g.columns);
    return;
  }
  const int64_t count = row_blocks(g.rows);
  T* const totals = reinterpret_cast<T*>(lane.shared_scratch());  // two totals per column
  T* const blocks = totals + 2 * g.columns;
  const T *mean = g.mean, *variance = g.variance;
  if (!mean) {
    T* const own = blocks + 2 * count * g.columns;
    moments<T>(lane, g.x, g.rows, g.columns, blocks, own, own + g.columns);
    mean = own, variance = own + g.columns;
  }
  if (g.training || g.dweight || g.dbias) {
    const Range mine = split(lane, count);
    for (int64_t b = mine.begin; b < mine.end; ++b) {
      T* block = blocks + 2 * b * g.columns;
      block_sums<T>(g, block_rows<T>(b, g.rows), mean, block, block + g.columns);
    }
    if (lane.count > 1) lane.barrier();
    add_blocks<T>(lane, blocks, count, 2 * g.columns, totals);
    if (lane.count > 1) lane.barrier();
    for_own_columns<T>(
        lane, g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> r = scale_of<T>(variance + j, static_cast<T>(g.eps), n);
          if (g.dbias) store_up_to<T>(g.dbias + j, load_up_to<T>(totals + j, n), n);
          if (g.dweight) store_up_to<T>(g.dweight + j, load_up_to<T>(totals + g.columns + j, n) * r, n);
        });
  }
  if (!g.dx) return;
  T* const factor = reinterpret_cast<T*>(lane.scratch());
  T* const shift = factor + g.columns;
  T* const tilt = shift + g.columns;
  const T each = T(1) / static_cast<T>(g.rows);
  for_vectors<T>(
      g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        const Vec<T> r = scale_of<T>(variance + j, static_cast<T>(g.eps), n);
        store_up_to<T>(factor + j, scaled<T>(r, g.weight, j, n), n);
        if (!g.training) return;
        store_up_to<T>(shift + j, load_up_to<T>(totals + j, n) * each, n);
        store_up_to<T>(tilt + j, load_up_to<T>(totals + g.columns + j, n) * each * r * r, n);
      });
  const Range rows = split(lane, g.rows, 4);
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const int64_t at = i * g.columns;
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          Vec<T> d = load_up_to<T>(g.dy + at + j, n);
          if (g.training) {
            const Vec<T> centered = load_up_to<T>(g.x + at + j, n) - load_up_to<T>(mean + j, n);
            d = d - load_up_to<T>(shift + j, n) - centered * load_up_to<T>(tilt + j, n);
          }
          store_up_to<T>(g.dx + at + j, d * load_up_to<T>(factor + j, n), n);
        });
  }
}

template <class T>
void run_update(const Lane& lane, const BatchNormUpdateArguments<T>& g) noexcept {
  const T momentum = static_cast<T>(g.momentum), correction = bessel<T>(g.rows);
  for_own_columns<T>(
      lane, g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        move_running<T>(g.running_mean + j, load_up_to<T>(g.mean + j, n), momentum, n);
        move_running<T>(g.running_var + j, load_up_to<T>(g.variance + j, n) * correction, momentum, n);
      });
}

}  // namespace

extern const BatchNormKernel batch_norm_kernel;
extern const BatchNormVjpKernel batch_norm_vjp_kernel;
extern const BatchNormUpdateKernel batch_norm_update_kernel;
const BatchNormKernel batch_norm_kernel = {run<float>, run<double>};
const BatchNormVjpKernel batch_norm_vjp_kernel = {run_vjp<float>, run_vjp<double>};
const BatchNormUpdateKernel batch_norm_update_kernel = {run_update<float>, run_update<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
