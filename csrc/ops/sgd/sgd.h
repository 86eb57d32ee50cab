// sgd_update: one pass over flat arenas, PyTorch's semantics (torch.optim.SGD, dampening 0):
//   g = grad * grad_scale + weight_decay * param
//   v = momentum * v + g;   g = nesterov ? g + momentum * v : v        (momentum > 0; v starts at 0)
//   param -= lr * g
#pragma once

#include <cstdint>

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
  double grad_scale = 1;  // the clip factor / the samples' total weight
};

template <class T>
void sgd_update(const Lane& lane, const SgdArguments<T>& arguments) noexcept;

// A parameter that is a matrix, which is updated tile by tile as a product computes its gradient (grad is not read).
template <class T>
struct SgdMatrix {
  SgdArguments<T> whole;
  int64_t columns = 0;
};

// The function that updates a tile, at the active ISA level and with the bits of sgd_update. Its `context` is a SgdMatrix<T>.
template <class T>
TileUpdate<T> sgd_tile_update() noexcept;
// The tiles that make the update in registers (TileConsumer::updating_tiles). Null if there are none for its options.
template <class T>
const void* sgd_updating_tiles(const SgdArguments<T>& arguments) noexcept;

int sgd_lanes(int64_t n, int lanes) noexcept;

}  // namespace gradring
