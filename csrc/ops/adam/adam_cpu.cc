#include "ops/adam/kernels.h"
#include "ops/math/reduce.h"
#include "ops/simd/gradient.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <bool Decoupled, bool kAmsgrad, class T>
void update(const AdamArguments<T>& g, const AdamFactors& factors, const GradientPart<T>& part) noexcept {
  const T beta1 = static_cast<T>(g.beta1), rest1 = static_cast<T>(1 - g.beta1);
  const T beta2 = static_cast<T>(g.beta2), rest2 = static_cast<T>(1 - g.beta2);
  const T step_size = static_cast<T>(factors.step_size), root = static_cast<T>(factors.root);
  const T eps = static_cast<T>(g.eps), scale = static_cast<T>(g.grad_scale);
  const T decay = static_cast<T>(Decoupled ? 1 - g.lr * g.weight_decay : g.weight_decay);
  T* const param = g.param;
  T* const first_moment = g.m;
  T* const second_moment = g.v;
  T* const largest_moment = kAmsgrad ? g.vmax : g.v;
  for_gradient(
      part, [&](int64_t at, Vec<T> gradient, const auto& get, const auto& put) __attribute__((always_inline)) {
        Vec<T> p = get(param + at);
        Vec<T> d = gradient * scale;
        if constexpr (Decoupled) {
          p = p * decay;
        } else {
          d = d + p * decay;
        }
        const Vec<T> m = get(first_moment + at) * beta1 + d * rest1;
        const Vec<T> v = running_square<T>(get(second_moment + at), d, beta2, rest2);
        put(first_moment + at, m);
        put(second_moment + at, v);
        Vec<T> spread = v;
        if constexpr (kAmsgrad) {
          const Vec<T> before = get(largest_moment + at);
          const IntVec<T> keeps = (before > v) | (before != before);  // a NaN in either one stays
          spread = keeps ? before : v;
          put(largest_moment + at, spread);
        }
        put(param + at, p - m * step_size / (square_root<T>(spread) * root + eps));
      });
}

template <class T>
void update(const AdamArguments<T>& g, const AdamFactors& factors, const GradientPart<T>& part) noexcept {
  if (g.vmax != nullptr) {
    if (g.decoupled) return update<true, true, T>(g, factors, part);
    return update<false, true, T>(g, factors, part);
  }
  if (g.decoupled) return update<true, false, T>(g, factors, part);
  update<false, false, T>(g, factors, part);
}

template <class T>
void run(const Lane& lane, const AdamArguments<T>& g) noexcept {
  update<T>(g, adam_factors(g.step, g.lr, g.beta1, g.beta2), lane_part(lane, g.n, g.grad));
}

template <class T>
void run_tile(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* tile,
              int64_t ld) noexcept {
  const auto& m = *static_cast<const AdamMatrix<T>*>(context);
  update<T>(m.whole, m.factors, tile_part(m.columns, row, rows, column, columns, tile, ld));
}

}  // namespace

extern const AdamKernel adam_kernel;
const AdamKernel adam_kernel = {run<float>, run<double>};
extern const AdamTileKernel adam_tile_kernel;
const AdamTileKernel adam_tile_kernel = {run_tile<float>, run_tile<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
