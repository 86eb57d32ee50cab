// matmul: C = epilogue(op(A) op(B)), row-major, fp32 and fp64.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/activation/activation.h"
#include "ops/matmul/products.h"
#include "ops/work.h"
#include "runtime/lane.h"

namespace gradring {

// A function that receives the finished tiles, which then do not go to C, and does the work that follows the product while
// each tile is in the first cache.
template <class T>
struct TileConsumer {
  // `tile` is rows x columns with leading dimension ld. Its first element is element (row, column) of the product.
  using Take = void (*)(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* tile,
                        int64_t ld) noexcept;
  Take take = nullptr;
  const void* context = nullptr;
  // Arrays of m x n and leading dimension touched_ld that `take` will read or write, so that the product prefetches
  // them; or null.
  T* touched[3] = {};
  int64_t touched_ld = 0;
  // A TileTable<T> (tile.h) of the active ISA level, or null. Its tiles do in registers what `take` does: they update touched[0], a
  // parameter, and touched[1], its state.
  const void* updating_tiles = nullptr;
};

// The work on each tile of the product while it is in the first cache, in the fields' order. All pointers may be null.
//   v = A B                       (+ C's old value, if accumulate)
//   v += bias[column]
//   pre[row, column] = v          (what the vjp of gelu and silu needs)
//   v = activation(v)
//   v *= derivative(mask)(mask_source[row, column])     mask_source: the output (relu, tanh, sigmoid) or the
//                                                       pre-activation (gelu, silu) of the layer before
//   column_sums[column] = sum over rows of v            (the bias gradient)
//   C = v, or consumer.take(v), and C, then only space for partial sums, is left undefined
template <class T>
struct MatmulEpilogue {
  bool accumulate = false;
  const T* bias = nullptr;
  T* pre = nullptr;  // its rows are ldc elements apart
  Activation activation = Activation::kNone;
  Activation mask = Activation::kNone;
  const T* mask_source = nullptr;  // its rows are mask_ld elements apart
  int64_t mask_ld = 0;
  TileConsumer<T> consumer;  // c must be given with it, for partial sums; `accumulate` must not
  T* column_sums = nullptr;  // summed in fixed blocks of rows: the same bits for any number of lanes
};

// This says which side of C is divided among the lanes. Memory that one core writes and another reads costs far more
// than arithmetic, so products that use the same matrix in every step should give a lane the same part of it. The choice
// changes no bit.
enum class Cut : uint8_t { kEither, kRows, kColumns };

template <class T>
struct MatmulArguments {
  int64_t m = 0, n = 0, k = 0;  // op(A) is m x k, op(B) is k x n, C is m x n
  const T* a = nullptr;
  int64_t lda = 0;  // elements between rows of A as it lies in memory
  bool trans_a = false;
  const T* b = nullptr;
  int64_t ldb = 0;
  bool trans_b = false;
  T* c = nullptr;
  int64_t ldc = 0;
  Cut cut = Cut::kEither;
  Products products = Products::kFma;  // for fp32; products that are too small for pieces are made by multiply-adds
  MatmulEpilogue<T> epilogue;
};

// Whether this product is made by pieces: they are asked for, and it is large enough. The shape alone decides.
bool by_pieces(const MatmulArguments<float>& arguments) noexcept;

// How much scratch memory the team must have reserved for this call, and how many lanes are worth waking for it.
template <class T>
ScratchBytes matmul_scratch(const MatmulArguments<T>& arguments, int lanes) noexcept;
template <class T>
int matmul_lanes(const MatmulArguments<T>& arguments, int lanes) noexcept;

// Every lane of a running team (or one lane alone) calls it with the same arguments. Lanes may return at different times, so a
// lane that reads another lane's part of C needs a barrier first. m, n and k may be 0 (if k is 0, C = epilogue(0)).
template <class T>
void matmul(const Lane& lane, const MatmulArguments<T>& arguments) noexcept;

}  // namespace gradring
