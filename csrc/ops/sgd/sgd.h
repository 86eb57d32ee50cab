// sgd_update: one pass over flat arenas, PyTorch's semantics (torch.optim.SGD, dampening 0):
//   g = grad * grad_scale + weight_decay * param
//   v = momentum * v + g;   g = nesterov ? g + momentum * v : v        (momentum > 0; v starts at 0)
//   param -= lr * g
#pragma once

#include <cstdint>

#include "gradring/export.h"
#include "ops/work.h"

namespace gradring {

template <class T>
struct SgdArguments {
  int64_t n = 0;
  T* param = nullptr;
  const T* grad = nullptr;
  T* velocity = nullptr;  // may be null if momentum is 0
  double lr = 0;
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  double grad_scale = 1;  // clipping, 1 / count
};

template <class T>
GRADRING_API void sgd_update(const Lane& lane, const SgdArguments<T>& arguments) noexcept;

// A parameter that is a matrix, updated a tile at a time as its gradient comes out of a product (grad is not read).
template <class T>
struct SgdMatrix {
  SgdArguments<T> whole;
  int64_t columns = 0;
};

// What updates a tile, with the active ISA level's instructions and the bits of sgd_update. context: a SgdMatrix<T>.
template <class T>
GRADRING_API TileUpdate<T> sgd_tile_update() noexcept;
// Tiles that do the same in registers (TileConsumer::updating_tiles). Null where this kind of update has none.
template <class T>
GRADRING_API const void* sgd_updating_tiles(const SgdArguments<T>& arguments) noexcept;

GRADRING_API int sgd_lanes(int64_t n, int lanes) noexcept;

}  // namespace gradring
