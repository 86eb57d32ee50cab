#include "ops/sgd/kernels.h"
#include "ops/simd_tail.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

enum class Kind { kPlain, kMomentum, kNesterov };

template <class T>
struct Factors {
  T lr, momentum, decay, scale;
};

// One vector of the parameter and its velocity. kBare: the gradient as it is, neither scaled nor with decay.
template <Kind K, bool kBare, class T, class Load, class Store>
GRADRING_INLINE void update_vector(const Factors<T>& f, T* param, T* velocity, const T* grad, const Load& get,
                                   const Store& put) noexcept {
  const Vec<T> p = get(param);
  Vec<T> d = get(grad);
  if constexpr (!kBare) d = d * f.scale + p * f.decay;
  if constexpr (K != Kind::kPlain) {
    const Vec<T> v = get(velocity) * f.momentum + d;
    put(velocity, v);
    d = K == Kind::kNesterov ? v * f.momentum + d : v;
  }
  put(param, p - d * f.lr);
}

// Rows of `columns` elements; row 0 of the parameter begins at `first`, and `stride` lies between rows.
template <Kind K, bool kBare, class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  constexpr int64_t W = kWidth<T>;
  const Factors<T> f{static_cast<T>(g.lr), static_cast<T>(g.momentum), static_cast<T>(g.weight_decay),
                     static_cast<T>(g.grad_scale)};
  const int64_t whole = columns / W * W;
  const Tail<T> tail(columns - whole);
  const auto get = [](const T* from) __attribute__((always_inline)) { return load(from); };
  const auto put = [](T * to, Vec<T> v) __attribute__((always_inline)) { store(to, v); };
  const auto get_tail = [&](const T* from) __attribute__((always_inline)) { return tail.load(from); };
  const auto put_tail = [&](T * to, Vec<T> v) __attribute__((always_inline)) { tail.store(to, v); };
  for (int64_t row = 0; row < rows; ++row) {
    T* param = g.param + first + row * stride;
    T* velocity = K == Kind::kPlain ? param : g.velocity + first + row * stride;
    int64_t i = 0;
    for (; i + 2 * W <= columns; i += 2 * W) {
      update_vector<K, kBare>(f, param + i, velocity + i, grad + i, get, put);
      update_vector<K, kBare>(f, param + i + W, velocity + i + W, grad + i + W, get, put);
    }
    if (i < whole) update_vector<K, kBare>(f, param + i, velocity + i, grad + i, get, put);
    if (whole < columns) update_vector<K, kBare>(f, param + whole, velocity + whole, grad + whole, get_tail, put_tail);
    grad += grad_stride;
  }
}

template <bool kBare, class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  const Kind kind = g.momentum == 0 ? Kind::kPlain : g.nesterov ? Kind::kNesterov : Kind::kMomentum;
  switch (kind) {
    case Kind::kPlain: return update<Kind::kPlain, kBare, T>(g, first, rows, stride, columns, grad, grad_stride);
    case Kind::kNesterov: return update<Kind::kNesterov, kBare, T>(g, first, rows, stride, columns, grad, grad_stride);
    default: return update<Kind::kMomentum, kBare, T>(g, first, rows, stride, columns, grad, grad_stride);
  }
}

template <class T>
void update(const SgdArguments<T>& g, int64_t first, int64_t rows, int64_t stride, int64_t columns, const T* grad,
            int64_t grad_stride) noexcept {
  if (g.grad_scale == 1 && g.weight_decay == 0) {
    return update<true, T>(g, first, rows, stride, columns, grad, grad_stride);
  }
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
