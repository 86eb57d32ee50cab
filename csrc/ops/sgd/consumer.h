// SGD as the consumer of a product's tiles: dw = x' dy and the update of w in one pass.
#pragma once

#include "ops/matmul/matmul.h"
#include "ops/sgd/sgd.h"

namespace gradring {

// `matrix` must outlive the product.
template <class T>
TileConsumer<T> sgd_consumer(const SgdMatrix<T>& matrix) noexcept {
  return {sgd_tile_update<T>(),
          &matrix,
          {matrix.whole.param, matrix.whole.velocity},
          matrix.columns,
          sgd_updating_tiles<T>(matrix.whole)};
}

}  // namespace gradring
