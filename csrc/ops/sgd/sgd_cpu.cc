#include "ops/sgd/kernels.h"
#include "ops/sgd/update_vector.h"
#include "ops/simd_tail.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Rows of `columns` elements; row 0 of the parameter begins at `first`, and `stride` lies between rows.
template <SgdKind K, bool kBare, class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  constexpr int64_t W = kWidth<T>;
  const SgdFactors<T> f(g);
  const int64_t whole = columns / W * W;
  const Tail<T> tail(columns - whole);
  const auto get = [](const T* from) __attribute__((always_inline)) { return load(from); };
  const auto put = [](T * to, Vec<T> v) __attribute__((always_inline)) { store(to, v); };
  const auto get_tail = [&](const T* from) __attribute__((always_inline)) { return tail.load(from); };
  const auto put_tail = [&](T * to, Vec<T> v) __attribute__((always_inline)) { tail.store(to, v); };
  for (int64_t row = 0; row < rows; ++row) {
    T* param = g.param + first + row * stride;
    T* velocity = K == SgdKind::kPlain ? param : g.velocity + first + row * stride;
    int64_t i = 0;
    for (; i + 2 * W <= columns; i += 2 * W) {
      update_vector<K, kBare>(f, param + i, velocity + i, get(grad + i), get, put);
      update_vector<K, kBare>(f, param + i + W, velocity + i + W, get(grad + i + W), get, put);
    }
    if (i < whole) update_vector<K, kBare>(f, param + i, velocity + i, get(grad + i), get, put);
    if (whole < columns)
      update_vector<K, kBare>(f, param + whole, velocity + whole, get_tail(grad + whole), get_tail, put_tail);
    grad += grad_stride;
  }
}

template <bool kBare, class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  switch (sgd_kind(g)) {
    case SgdKind::kPlain: return update<SgdKind::kPlain, kBare, T>(g, first, rows, stride, columns, grad, grad_stride);
    case SgdKind::kNesterov:
      return update<SgdKind::kNesterov, kBare, T>(g, first, rows, stride, columns, grad, grad_stride);
    default: return update<SgdKind::kMomentum, kBare, T>(g, first, rows, stride, columns, grad, grad_stride);
  }
}

template <class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  if (sgd_bare(g)) return update<true, T>(g, first, rows, stride, columns, grad, grad_stride);
  update<false, T>(g, first, rows, stride, columns, grad, grad_stride);
}

template <class T>
void run(const Lane& lane, const SgdArguments<T>& g) noexcept {
  const Range part = split(lane, g.n, kFlatGrain);
  update<T>(g, part.begin, 1, 0, part.end - part.begin, g.grad + part.begin, 0);
}

template <class T>
void run_tile(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* tile,
              int64_t ld) noexcept {
  const auto& m = *static_cast<const SgdMatrix<T>*>(context);
  update<T>(m.whole, row * m.columns + column, rows, m.columns, columns, tile, ld);
}

}  // namespace

extern const SgdKernel sgd_kernel;
const SgdKernel sgd_kernel = {run<float>, run<double>};
extern const SgdTileKernel sgd_tile_kernel;
const SgdTileKernel sgd_tile_kernel = {run_tile<float>, run_tile<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
