#include "ops/adam/kernels.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Rows of `columns` elements; row 0 of the parameter begins at `first`, and `stride` lies between rows.
template <bool Decoupled, class T>
void update(const AdamArguments<T>& g, const AdamFactors& factors, int64_t first, int64_t rows, int64_t stride,
            int64_t columns, const T* grad, int64_t grad_stride) noexcept {
  const T beta1 = static_cast<T>(g.beta1), rest1 = static_cast<T>(1 - g.beta1);
  const T beta2 = static_cast<T>(g.beta2), rest2 = static_cast<T>(1 - g.beta2);
  const T step_size = static_cast<T>(factors.step_size), root = static_cast<T>(factors.root);
  const T large_gradient = static_cast<T>(sizeof(T) == 4 ? 1e18 : 1e153);
  const Vec<T> one = Vec<T>{} + T(1), every_rest2 = Vec<T>{} + rest2;
  const T eps = static_cast<T>(g.eps), scale = static_cast<T>(g.grad_scale);
  const T decay = static_cast<T>(Decoupled ? 1 - g.lr * g.weight_decay : g.weight_decay);
  for (int64_t row = 0; row < rows; ++row) {
    T* param = g.param + first + row * stride;
    T* first_moment = g.m + first + row * stride;
    T* second_moment = g.v + first + row * stride;
    for_vectors<T>(
        columns, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
          Vec<T> p = load_up_to<T>(param + i, n);
          Vec<T> d = load_up_to<T>(grad + i, n) * scale;
          if constexpr (Decoupled) {
            p = p * decay;
          } else {
            d = d + p * decay;
          }
          const Vec<T> m = load_up_to<T>(first_moment + i, n) * beta1 + d * rest1;
          // (1 - beta2) d, and that times d, where d * d alone would overflow; elsewhere d * d as ever.
          const IntVec<T> large = abs<T>(d) > large_gradient;
          const Vec<T> scaled = d * rest2;
          const Vec<T> square = d * (large ? scaled : d);
          const Vec<T> v = load_up_to<T>(second_moment + i, n) * beta2 + square * (large ? one : every_rest2);
          store_up_to<T>(first_moment + i, m, n);
          store_up_to<T>(second_moment + i, v, n);
          store_up_to<T>(param + i, p - m * step_size / (square_root<T>(v) * root + eps), n);
        });
    grad += grad_stride;
  }
}

template <class T>
void run(const Lane& lane, const AdamArguments<T>& g) noexcept {
  const AdamFactors factors = adam_factors(g.step, g.lr, g.beta1, g.beta2);
  const Range part = split(lane, g.n, kFlatGrain);
  const int64_t n = part.end - part.begin;
  if (g.decoupled) return update<true, T>(g, factors, part.begin, 1, 0, n, g.grad + part.begin, 0);
  update<false, T>(g, factors, part.begin, 1, 0, n, g.grad + part.begin, 0);
}

template <class T>
void run_tile(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* tile,
              int64_t ld) noexcept {
  const auto& m = *static_cast<const AdamMatrix<T>*>(context);
  const int64_t first = row * m.columns + column;
  if (m.whole.decoupled) return update<true, T>(m.whole, m.factors, first, rows, m.columns, columns, tile, ld);
  update<false, T>(m.whole, m.factors, first, rows, m.columns, columns, tile, ld);
}

}  // namespace

extern const AdamKernel adam_kernel;
const AdamKernel adam_kernel = {run<float>, run<double>};
extern const AdamTileKernel adam_tile_kernel;
const AdamTileKernel adam_tile_kernel = {run_tile<float>, run_tile<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
