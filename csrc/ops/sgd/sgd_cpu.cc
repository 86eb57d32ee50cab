#include "ops/sgd/kernels.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

enum class Kind { kPlain, kMomentum, kNesterov };

// Rows of `columns` elements; row 0 of the parameter begins at `first`, and `stride` lies between rows.
template <Kind K, class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  const T lr = static_cast<T>(g.lr), momentum = static_cast<T>(g.momentum), decay = static_cast<T>(g.weight_decay);
  const T scale = static_cast<T>(g.grad_scale);
  for (int64_t row = 0; row < rows; ++row) {
    T* param = g.param + first + row * stride;
    T* velocity = K == Kind::kPlain ? nullptr : g.velocity + first + row * stride;
    for_vectors<T>(
        columns, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
          const Vec<T> p = load_up_to<T>(param + i, n);
          Vec<T> d = load_up_to<T>(grad + i, n) * scale + p * decay;
          if constexpr (K != Kind::kPlain) {
            const Vec<T> v = load_up_to<T>(velocity + i, n) * momentum + d;
            store_up_to<T>(velocity + i, v, n);
            d = K == Kind::kNesterov ? v * momentum + d : v;
          }
          store_up_to<T>(param + i, p - d * lr, n);
        });
    grad += grad_stride;
  }
}

template <class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  const Kind kind = g.momentum == 0 ? Kind::kPlain : g.nesterov ? Kind::kNesterov : Kind::kMomentum;
  switch (kind) {
    case Kind::kPlain: return update<Kind::kPlain, T>(g, first, rows, stride, columns, grad, grad_stride);
    case Kind::kNesterov: return update<Kind::kNesterov, T>(g, first, rows, stride, columns, grad, grad_stride);
    default: return update<Kind::kMomentum, T>(g, first, rows, stride, columns, grad, grad_stride);
  }
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
