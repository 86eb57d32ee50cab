// Tiles of a matrix product that update a parameter while its gradient is in registers: SGD with momentum, but without
// decay or scale, which would need more registers.
#include "ops/matmul/tile.h"
#include "ops/sgd/kernels.h"
#include "ops/sgd/update_vector.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

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

extern const SgdUpdatingTiles sgd_tile_tables;
const SgdUpdatingTiles sgd_tile_tables = {&kUpdatingTiles<float, MomentumUpdate>,
                                          &kUpdatingTiles<double, MomentumUpdate>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
