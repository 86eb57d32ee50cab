#include "ops/softmax/kernels.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <class T, int N>
void short_rows(const SoftmaxArguments<T>& g, Range rows) noexcept {
  const int64_t tail = g.columns - (N - 1) * kWidth<T>;
  const IntVec<T> valid = first_elements<T>(tail);
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    Row<T, N> row = load_row<T, N>(g.x + i * g.columns, tail);
    const Vec<T> max = row_max<T, N>(row, valid);
    const Row<T, N> e = row_exp<T, N>(row, max, valid);
    const Vec<T> sum = row_sum<T, N>(e);
    if (g.logarithm) {
      const Vec<T> log_sum = math::log<T>(sum);
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) row.v[k] = (row.v[k] - max) - log_sum;
    } else {
      const Vec<T> scale = T(1) / sum;
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) row.v[k] = e.v[k] * scale;
    }
    store_row<T, N>(g.y + i * g.columns, row, tail);
  }
}

template <class T>
void long_rows(const SoftmaxArguments<T>& g, Range rows) noexcept {
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const T* x = g.x + i * g.columns;
    T* y = g.y + i * g.columns;
    const Vec<T> max = long_row_max<T>(x, g.columns);
    const Vec<T> sum = long_row_exp<T>(x, g.logarithm ? nullptr : y, g.columns, max);
    if (g.logarithm) {
      const Vec<T> log_sum = math::log<T>(sum);
      for_vectors<T>(
          g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
            store_up_to<T>(y + j, (load_up_to<T>(x + j, n) - max) - log_sum, n);
          });
    } else {
      const Vec<T> scale = T(1) / sum;
      for_vectors<T>(
          g.columns, [&](int64_t j, int64_t n)
                         __attribute__((always_inline)) { store_up_to<T>(y + j, load_up_to<T>(y + j, n) * scale, n); });
    }
  }
}

template <class T>
void run(const Lane& lane, const SoftmaxArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  const Range rows = split(lane, g.rows, 16);
  switch ((g.columns + kWidth<T> - 1) / kWidth<T>) {
    case 1: return short_rows<T, 1>(g, rows);
    case 2: return short_rows<T, 2>(g, rows);
    case 3: return short_rows<T, 3>(g, rows);
    case 4: return short_rows<T, 4>(g, rows);
    default: return long_rows<T>(g, rows);
  }
}

template <class T, int N>
void short_rows_vjp(const SoftmaxVjpArguments<T>& g, Range rows) noexcept {
  const int64_t tail = g.columns - (N - 1) * kWidth<T>;
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const Row<T, N> dy = load_row<T, N>(g.dy + i * g.columns, tail);
    const Row<T, N> y = load_row<T, N>(g.y + i * g.columns, tail);
    Row<T, N> dx;
    if (g.logarithm) {
      const Vec<T> sum = row_sum<T, N>(dy);
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) dx.v[k] = dy.v[k] - math::exp<T>(y.v[k]) * sum;
    } else {
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) dx.v[k] = dy.v[k] * y.v[k];
      const Vec<T> sum = row_sum<T, N>(dx);
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) dx.v[k] = y.v[k] * (dy.v[k] - sum);
    }
    store_row<T, N>(g.dx + i * g.columns, dx, tail);
  }
}

template <class T>
void long_rows_vjp(const SoftmaxVjpArguments<T>& g, Range rows) noexcept {
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const T* dy = g.dy + i * g.columns;
    const T* y = g.y + i * g.columns;
    T* dx = g.dx + i * g.columns;
    Vec<T> sum{};
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> v = load_up_to<T>(dy + j, n);
          sum += g.logarithm ? v : v * load_up_to<T>(y + j, n);
        });
    sum = horizontal_sum<T>(sum);
    for_vectors<T>(
        g.columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
          const Vec<T> d = load_up_to<T>(dy + j, n), v = load_up_to<T>(y + j, n);
          store_up_to<T>(dx + j, g.logarithm ? d - math::exp<T>(v) * sum : v * (d - sum), n);
        });
  }
}

template <class T>
void run_vjp(const Lane& lane, const SoftmaxVjpArguments<T>& g) noexcept {
  if (g.columns == 0) return;
  const Range rows = split(lane, g.rows, 16);
  switch ((g.columns + kWidth<T> - 1) / kWidth<T>) {
    case 1: return short_rows_vjp<T, 1>(g, rows);
    case 2: return short_rows_vjp<T, 2>(g, rows);
    case 3: return short_rows_vjp<T, 3>(g, rows);
    case 4: return short_rows_vjp<T, 4>(g, rows);
    default: return long_rows_vjp<T>(g, rows);
  }
}

}  // namespace

extern const SoftmaxKernel softmax_kernel;
extern const SoftmaxVjpKernel softmax_vjp_kernel;
const SoftmaxKernel softmax_kernel = {run<float>, run<double>};
const SoftmaxVjpKernel softmax_vjp_kernel = {run_vjp<float>, run_vjp<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
