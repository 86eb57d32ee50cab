// The work that follows the micro-kernel on a tile of C, while the tile is in the first cache: storing the pre-activation,
// the activation, the multiplication by an activation's derivative, and the column sums.
#pragma once

#include "ops/activation/activation_math.h"
#include "ops/matmul/matmul.h"
#include "ops/simd_tail.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

struct Block {
  int64_t row, rows, column, columns;
};

// Whether the micro-kernel applies relu itself.
template <class T>
GRADRING_INLINE bool relu_in_tile(const MatmulEpilogue<T>& e) noexcept {
  return e.activation == Activation::kRelu && !e.pre;
}

template <class T>
GRADRING_INLINE bool needs_finish(const MatmulEpilogue<T>& e) noexcept {
  return e.pre || e.mask != Activation::kNone || e.column_sums ||
         (e.activation != Activation::kNone && e.activation != Activation::kRelu);
}

// Finishes one column of vectors from top to bottom. `sums` receives this block's column sums, or is null.
template <class T, Activation kActivation, Activation kMask, bool kTail>
GRADRING_INLINE void finish_column(const MatmulArguments<T>& g, const Block& block, int64_t j, T* sums) noexcept {
  const MatmulEpilogue<T>& e = g.epilogue;
  const Tail<T> tail(kTail ? block.column + block.columns - j : kWidth<T>);
  const auto get = [&](const T* from) __attribute__((always_inline)) { return kTail ? tail.load(from) : load(from); };
  const auto put = [&](T * to, Vec<T> v) __attribute__((always_inline)) {
    if (kTail) {
      tail.store(to, v);
    } else {
      store(to, v);
    }
  };
  Vec<T> sum{};
  for (int64_t i = block.row; i < block.row + block.rows; ++i) {
    T* const c = g.c + i * g.ldc + j;
    Vec<T> v = get(c);
    if (e.pre) put(e.pre + i * g.ldc + j, v);
    v = activate<kActivation, T>(v);
    if constexpr (kMask != Activation::kNone) {
      v = activate_backward<kMask, T>(v, get(e.mask_source + i * e.mask_ld + j));
    }
    if constexpr (kActivation != Activation::kNone || kMask != Activation::kNone) put(c, v);
    sum += v;
  }
  if (sums) put(sums + j, sum);
}

template <class T, Activation kActivation, Activation kMask>
void finish_with(const MatmulArguments<T>& g, const Block& block, T* sums) noexcept {
  const int64_t end = block.column + block.columns;
  int64_t j = block.column;
  for (; j + kWidth<T> <= end; j += kWidth<T>) finish_column<T, kActivation, kMask, false>(g, block, j, sums);
  if (j < end) finish_column<T, kActivation, kMask, true>(g, block, j, sums);
}

template <class T, Activation kMask>
GRADRING_INLINE void finish_activation(const MatmulArguments<T>& g, Activation a, const Block& block,
                                       T* sums) noexcept {
  switch (a) {
    case Activation::kRelu: return finish_with<T, Activation::kRelu, kMask>(g, block, sums);
    case Activation::kGelu: return finish_with<T, Activation::kGelu, kMask>(g, block, sums);
    case Activation::kSilu: return finish_with<T, Activation::kSilu, kMask>(g, block, sums);
    case Activation::kTanh: return finish_with<T, Activation::kTanh, kMask>(g, block, sums);
    case Activation::kSigmoid: return finish_with<T, Activation::kSigmoid, kMask>(g, block, sums);
    default: return finish_with<T, Activation::kNone, kMask>(g, block, sums);
  }
}

// Finishes a block. `sums` is a row of n partial column sums, or null. relu_done: the micro-kernel has applied relu.
template <class T>
void finish(const MatmulArguments<T>& g, const Block& block, T* sums, bool relu_done) noexcept {
  const MatmulEpilogue<T>& e = g.epilogue;
  const Activation a = relu_done ? Activation::kNone : e.activation;
  switch (e.mask) {
    case Activation::kNone: return finish_activation<T, Activation::kNone>(g, a, block, sums);
    default: break;
  }
  // A call with both an activation and a mask is rare: two passes keep the number of variants small.
  if (a != Activation::kNone || e.pre) {
    finish_activation<T, Activation::kNone>(g, a, block, nullptr);
  }
  MatmulArguments<T> masked = g;
  masked.epilogue.pre = nullptr;
  switch (e.mask) {
    case Activation::kRelu: return finish_with<T, Activation::kNone, Activation::kRelu>(masked, block, sums);
    case Activation::kGelu: return finish_with<T, Activation::kNone, Activation::kGelu>(masked, block, sums);
    case Activation::kSilu: return finish_with<T, Activation::kNone, Activation::kSilu>(masked, block, sums);
    case Activation::kTanh: return finish_with<T, Activation::kNone, Activation::kTanh>(masked, block, sums);
    default: return finish_with<T, Activation::kNone, Activation::kSigmoid>(masked, block, sums);
  }
}

// Gives a finished block of C to the consumer, if there is one. Only the methods that write the product to C call this.
template <class T>
GRADRING_INLINE void hand_over(const MatmulArguments<T>& g, const Block& block) noexcept {
  const TileConsumer<T>& consumer = g.epilogue.consumer;
  if (!consumer.take) return;
  consumer.take(consumer.context, block.row, block.rows, block.column, block.columns,
                g.c + block.row * g.ldc + block.column, g.ldc);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE
