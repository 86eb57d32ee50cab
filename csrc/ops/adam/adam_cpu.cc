#include "ops/dispatch.h"

#if GRADRING_VECTOR_BYTES < 64  // AVX-512 uses the kernels of AVX2: see GRADRING_DECLARE_NARROW_KERNELS

#include "ops/adam/kernels.h"
#include "ops/adam/update_vector.h"
#include "ops/simd/gradient.h"
#include "ops/simd/subnormals.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <bool kDecoupled, bool kAmsgrad, class T>
void update(const AdamArguments<T>& g, const AdamFactors& factors, const GradientPart<T>& part) noexcept {
  const AdamVectorFactors<T> f(g, factors, g.lr, g.grad_scale);
  T* const param = g.param;
  T* const m = g.m;
  T* const v = g.v;
  T* const vmax = kAmsgrad ? g.vmax : g.v;
  for_gradient(
      part, [&](int64_t at, Vec<T> gradient, const auto& get, const auto& put) __attribute__((always_inline)) {
        adam_vector<kDecoupled, kAmsgrad, T>(f, param + at, m + at, v + at, vmax + at, gradient, get, put);
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
  const SubnormalsAsZeros zeros;
  update<T>(g, adam_factors(g.step, g.lr, g.beta1, g.beta2), lane_part(lane, g.n, g.grad));
}

template <class T>
void run_tile(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* tile,
              int64_t ld) noexcept {
  const SubnormalsAsZeros zeros;
  const auto& m = *static_cast<const AdamMatrix<T>*>(context);
  update<T>(m.whole, m.factors, tile_part(m.columns, row, rows, column, columns, tile, ld));
}

}  // namespace

extern const AdamKernel adam_kernel;
const AdamKernel adam_kernel = {run<float>, run<double>};
extern const AdamTileKernel adam_tile_kernel;
const AdamTileKernel adam_tile_kernel = {run_tile<float>, run_tile<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#endif
