// Tiles of a matrix product that update a parameter while its gradient is in registers: SGD with momentum, but without
// decay or scale, which would need more registers. Processors without multiply-adds do without these tiles, to keep the code small.
#include "ops/matmul/tile.h"
#include "ops/sgd/kernels.h"
#include "ops/sgd/update_vector.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

#if defined(__FMA__) || defined(__aarch64__)

namespace {

struct MomentumUpdate {
  static constexpr bool kUpdates = true;

  template <class T>
  static GRADRING_INLINE SgdFactors<T> factors(const void* context) noexcept {
    return SgdFactors<T>(static_cast<const SgdMatrix<T>*>(context)->whole);
  }
  template <class T, class Load, class Store>
  static GRADRING_INLINE void apply(const SgdFactors<T>& f, T* param, T* velocity, Vec<T> gradient, const Load& get,
                                    const Store& put) noexcept {
    update_vector<SgdKind::kMomentum, true>(f, param, velocity, gradient, get, put);
  }
};

}  // namespace

#endif

extern const SgdUpdatingTiles sgd_tile_tables;
#if defined(__FMA__) || defined(__aarch64__)
const SgdUpdatingTiles sgd_tile_tables = {&kUpdatingTiles<float, MomentumUpdate>};
#else
const SgdUpdatingTiles sgd_tile_tables = {nullptr};
#endif

}  // namespace gradring::GRADRING_ISA_NAMESPACE
