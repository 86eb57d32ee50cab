#include "ops/dispatch.h"

#if GRADRING_VECTOR_BYTES < 64  // AVX-512 uses the kernels of AVX2: see GRADRING_DECLARE_NARROW_KERNELS

#include "ops/sgd/kernels.h"
#include "ops/sgd/update_vector.h"
#include "ops/simd/gradient.h"
#include "ops/simd/subnormals.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <SgdKind K, bool kBare, class T>
void update(const SgdArguments<T>& g, const GradientPart<T>& part) noexcept {
  const SgdFactors<T> f(g);
  T* const param = g.param;
  T* const velocity = K == SgdKind::kPlain ? param : g.velocity;
  for_gradient(
      part, [&](int64_t at, Vec<T> gradient, const auto& get, const auto& put) __attribute__((always_inline)) {
        update_vector<K, kBare>(f, param + at, velocity + at, gradient, get, put);
      });
}

template <bool kBare, class T>
void update(const SgdArguments<T>& g, const GradientPart<T>& part) noexcept {
  switch (sgd_kind(g)) {
    case SgdKind::kPlain: return update<SgdKind::kPlain, kBare, T>(g, part);
    case SgdKind::kNesterov: return update<SgdKind::kNesterov, kBare, T>(g, part);
    default: return update<SgdKind::kMomentum, kBare, T>(g, part);
  }
}

template <class T>
void update(const SgdArguments<T>& g, const GradientPart<T>& part) noexcept {
  if (sgd_bare(g)) return update<true, T>(g, part);
  update<false, T>(g, part);
}

template <class T>
void run(const Lane& lane, const SgdArguments<T>& g) noexcept {
  const SubnormalsAsZeros zeros;
  update<T>(g, lane_part(lane, g.n, g.grad));
}

template <class T>
void run_tile(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* tile,
              int64_t ld) noexcept {
  const SubnormalsAsZeros zeros;
  const auto& m = *static_cast<const SgdMatrix<T>*>(context);
  update<T>(m.whole, tile_part(m.columns, row, rows, column, columns, tile, ld));
}

}  // namespace

extern const SgdKernel sgd_kernel;
const SgdKernel sgd_kernel = {run<float>, run<double>};
extern const SgdTileKernel sgd_tile_kernel;
const SgdTileKernel sgd_tile_kernel = {run_tile<float>, run_tile<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#endif
