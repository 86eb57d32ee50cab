// The micro-kernel: a tile of C in registers, one broadcast of A times a row of B per step (Goto and van de Geijn,
// Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34(3), 2008; Van Zee and van de Geijn, BLIS, ACM TOMS
// 41(3), 2015). Every element is one chain of multiply-adds in the order of k, so its bits depend neither on the
// tile's size nor on where it lies.
#pragma once

#include <utility>

#include "ops/simd.h"
#include "ops/simd/subnormals.h"
#include "ops/simd_tail.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

GRADRING_INLINE constexpr int64_t divide_up(int64_t x, int64_t by) noexcept { return (x + by - 1) / by; }
GRADRING_INLINE constexpr int64_t smaller(int64_t x, int64_t y) noexcept { return x < y ? x : y; }
GRADRING_INLINE constexpr int64_t larger(int64_t x, int64_t y) noexcept { return x > y ? x : y; }

#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kVectorRegisters = 32;
#else
inline constexpr int kVectorRegisters = 16;
#endif
// How many steps a pass of the innermost loop makes. Two are the fastest where multiply-adds are one instruction: fewer other
// instructions take their ports, and the loop still fits the buffer of decoded instructions. More of them spill registers.
#if defined(__FMA__) || defined(__aarch64__)
inline constexpr int kStepsAtOnce = 2;
#else
inline constexpr int kStepsAtOnce = 1;
#endif
// A tile leaves registers free for a row of B and two broadcasts. Without multiply-adds, products need registers too, and four rows
// keep the adder busy: an addition takes three or four cycles.
inline constexpr int kTileVectors = 2;
#if defined(__FMA__) || defined(__aarch64__)
inline constexpr int kTileRows = (kVectorRegisters - kTileVectors - 2) / kTileVectors;
#else
inline constexpr int kTileRows = 4;
#endif

template <class T>
inline constexpr int kTileColumns = kTileVectors * kWidth<T>;
// Packed A has this many elements per step of k; a tile uses as many as it has rows.
template <class T>
inline constexpr int kPackedRows = (kTileRows + kWidth<T> - 1) / kWidth<T> * kWidth<T>;

// Where masked loads are as fast as others, the tiles for columns that end within a vector serve whole vectors, too, and
// only the highest have both forms: half the code.
#if defined(__AVX512VL__)
inline constexpr bool kMasksAreFree = true;
#else
inline constexpr bool kMasksAreFree = false;
#endif
constexpr bool masks_whole(int rows) noexcept { return kMasksAreFree && rows < kTileRows; }

// How many rows ahead of its copying a row of B is prefetched.
inline constexpr int64_t kAheadRows = 8;

template <class T>
struct TileWork {
  const T* a;
  int64_t a_stride;  // between rows, or between steps (see kRowsTogether)
  const T* b;
  int64_t b_stride;  // between steps
  int64_t steps;
  T* c;
  int64_t ldc;
  bool add_to_c;  // C's old value is part of the sum
  const T* bias;  // the bias of the columns, or null
  bool relu;
  int64_t columns;  // from 1 to vectors * width
  T* copy_b;        // where the rows of B are copied for the next tiles, or null
  int64_t copy_stride;
  // The rows of B that the next panel needs: each of the first `ahead_steps` steps copies a row of kTileVectors vectors to ahead_to,
  // where rows are kTileColumns apart, or only prefetches it into the second cache if ahead_to is null.
  const T* ahead;
  int64_t ahead_stride, ahead_steps;
  T* ahead_to;
  // Arrays of C's shape that the tile's consumer will use, or null: each step prefetches one row of them.
  const T* touched[4];
  int64_t touched_ld;
  // For a tile that updates a parameter, which is C: the source of the update's factors, and the optimizer's state.
  const void* context;
  T* state;  // leading dimension ldc
};

template <class T>
using TileKernel = void (*)(const TileWork<T>&) noexcept;

// What follows a tile's sums. This type stores them. A type with kUpdates uses them as the gradient of C, and updates C and its
// state in registers instead:
//   Factors<T> factors = Update::template factors<T>(context);
//   Update::apply(factors, c, state, gradient, load, store);       for each vector
struct KeepSums {
  static constexpr bool kUpdates = false;
};

// kRowsTogether says that the elements of A for one step are adjacent (A is packed, or transposed in memory). If not, the
// elements of a row are adjacent.
template <class T, int kRows, int kVectors, bool kRowsTogether, bool kTail, class Update = KeepSums>
void tile(const TileWork<T>& w) noexcept {
  constexpr int kW = kWidth<T>;
  Vec<T> sums[kRows][kVectors];
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sums[i][j] = Vec<T>{};

  const Tail<T> tail(kTail ? w.columns - (kVectors - 1) * kW : kW);
  const auto load_last = [&](const T* from) __attribute__((always_inline)) {
    return kTail ? tail.load(from) : load(from);
  };
  // The next kernel soon loads what a tile stores, and processors do not forward masked stores to loads.
  const bool whole = !kTail || (masks_whole(kRows) && w.columns == kVectors * kW);
  const auto store_last = [&](T * to, Vec<T> v) __attribute__((always_inline)) {
    if (whole) {
      store(to, v);
    } else {
      tail.store(to, v);
    }
  };

  const T* a = w.a;
  const T* b = w.b;
  const int64_t a_stride = w.a_stride, b_stride = w.b_stride;
  if (w.steps >= 24 && !w.touched[0]) {
    for (int i = 0; i < kRows; ++i) {
      __builtin_prefetch(w.c + i * w.ldc, 1);
      __builtin_prefetch(w.c + i * w.ldc + w.columns - 1, 1);
    }
  }
  // A step: a row of B times the tile's elements of A.
  Vec<T> row[kVectors];
  const auto load_row = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors - 1; ++j) row[j] = load(b + j * kW);
    row[kVectors - 1] = load_last(b + (kVectors - 1) * kW);
  };
  const auto multiply = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i) {
      const T factor = kRowsTogether ? a[i] : a[i * a_stride];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sums[i][j] += factor * row[j];
    }
    a += kRowsTogether ? a_stride : 1;
    b += b_stride;
  };

  // The multiply-adds of a step fill the ports that can do them, and any other instruction may take one of those. So the steps
  // that also copy or prefetch have loops of their own, and the last loop, which makes most steps, does nothing else. The code of a
  // step is large, so one loop copies this panel or brings the next one, and also makes a last odd step.
  int64_t left = w.steps, plain = left - w.ahead_steps;
  // Only gradients of weights have consumers that touch other arrays, and there the rows of A lie together.
  for (int array = 0; kRowsTogether && w.touched[array]; ++array) plain -= plain < kRows ? plain : kRows;
  // Small products have none of these steps, and skip what prepares them.
  if (int64_t others = w.copy_b ? left : w.ahead_steps + plain % kStepsAtOnce; others > 0) {
    T* copy = w.copy_b;
    const int64_t copy_stride = w.copy_stride;
    const T* ahead = w.ahead;
    T* to = w.ahead_to;
    const int64_t ahead_stride = w.ahead_stride;
    int64_t with_ahead = w.ahead_steps;
    left -= others;
    for (; others > 0; --others) {
      load_row();
      if (copy) {
        // The first pass over B also packs it. Its rows may lie so far apart that no hardware prefetcher follows.
        __builtin_prefetch(b + 12 * b_stride);
        if (kVectors > 1) __builtin_prefetch(b + 12 * b_stride + (kVectors - 1) * kW);
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) store(copy + j * kW, row[j]);
        copy += copy_stride;
      } else if (--with_ahead >= 0) {
        if (to) {
          __builtin_prefetch(ahead + kAheadRows * ahead_stride);
          __builtin_prefetch(ahead + kAheadRows * ahead_stride + kTileColumns<T> - 1);
#pragma GCC unroll 4
          for (int j = 0; j < kTileVectors; ++j) store(to + j * kW, load(ahead + j * kW));
          to += kTileColumns<T>;
        } else {
          __builtin_prefetch(ahead, 0, 2);
          __builtin_prefetch(ahead + kW, 0, 2);
          __builtin_prefetch(ahead + kTileColumns<T> - 1, 0, 2);
        }
        ahead += ahead_stride;
      }
      multiply();
    }
  }
  for (int array = 0; kRowsTogether && w.touched[array]; ++array) {
    const T* touched = w.touched[array];
    const int64_t ld = w.touched_ld, last = w.columns - 1;
    const int64_t count = left < kRows ? left : kRows;
    left -= count;
    for (int64_t i = 0; i < count; ++i) {
      load_row();
      __builtin_prefetch(touched, 1);
      __builtin_prefetch(touched + last, 1);
      touched += ld;
      multiply();
    }
  }
  for (; left > 0; left -= kStepsAtOnce) {
#pragma GCC unroll 2
    for (int q = 0; q < kStepsAtOnce; ++q) {
      load_row();
      multiply();
    }
  }

  if constexpr (Update::kUpdates) {
    const SubnormalsAsZeros zeros;
    const auto factors = Update::template factors<T>(w.context);
    const auto get = [](const T* from) __attribute__((always_inline)) { return load(from); };
    const auto put = [](T * at, Vec<T> v) __attribute__((always_inline)) { store(at, v); };
    T* param = w.c;
    T* state = w.state;
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i) {
      int64_t at = 0;
#pragma GCC unroll 4
      for (int j = 0; j < kVectors - 1; ++j, at += kW) {
        Update::apply(factors, param + at, state + at, sums[i][j], get, put);
      }
      Update::apply(factors, param + at, state + at, sums[i][kVectors - 1], load_last, store_last);
      param += w.ldc;
      state += w.ldc;
    }
    return;
  }
  if (w.add_to_c) {
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors - 1; ++j) sums[i][j] += load(w.c + i * w.ldc + j * kW);
      sums[i][kVectors - 1] += load_last(w.c + i * w.ldc + (kVectors - 1) * kW);
    }
  }
  if (w.bias) {
    Vec<T> bias[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors - 1; ++j) bias[j] = load(w.bias + j * kW);
    bias[kVectors - 1] = load_last(w.bias + (kVectors - 1) * kW);
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sums[i][j] += bias[j];
  }
  if (w.relu) {
    const Vec<T> zero{};
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sums[i][j] = maximum<T>(zero, sums[i][j]);  // NaN and -0 stay
  }
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i) {
    T* const c = w.c + i * w.ldc;
#pragma GCC unroll 4
    for (int j = 0; j < kVectors - 1; ++j) store(c + j * kW, sums[i][j]);
    store_last(c + (kVectors - 1) * kW, sums[i][kVectors - 1]);
  }
}

// The most rows of a tile that has code of its own. Where small code counts for more, higher tiles are made of two lower ones.
inline constexpr int kOwnRows = kSmallCode ? 2 : kTileRows;

// Computes a tile of kOwnRows rows and, below it, the rest of the rows. `a_step` is the distance between two rows of A.
template <class T>
void stack_tiles(const TileWork<T>& w, int64_t a_step, TileKernel<T> top, TileKernel<T> rest) noexcept {
  top(w);
  TileWork<T> below = w;
  below.a += kOwnRows * a_step;
  below.c += kOwnRows * w.ldc;
  if (w.copy_b) {
    below.b = w.copy_b;
    below.b_stride = w.copy_stride;
    below.copy_b = nullptr;
  }
  below.ahead_steps = 0;
  below.touched[0] = nullptr;  // the upper tile has brought, copied and prefetched all
  rest(below);
}

template <class T, int kRows, int kVectors, bool kRowsTogether, bool kTail, class Update>
void stacked(const TileWork<T>& w) noexcept {
  static_assert(kRows <= 2 * kOwnRows && !Update::kUpdates);
  stack_tiles<T>(w, kRowsTogether ? 1 : w.a_stride, tile<T, kOwnRows, kVectors, kRowsTogether, kTail, Update>,
                 tile<T, kRows - kOwnRows, kVectors, kRowsTogether, kTail, Update>);
}

template <class T, int kRows, int kVectors, bool kRowsTogether, bool kTail, class Update = KeepSums>
constexpr TileKernel<T> tile_of() noexcept {
  if constexpr (kRows > kOwnRows) {
    return stacked<T, kRows, kVectors, kRowsTogether, kTail, Update>;
  } else {
    return tile<T, kRows, kVectors, kRowsTogether, kTail, Update>;
  }
}

template <class T>
struct TileTable {
  TileKernel<T> kernel[2][2][kTileVectors][kTileRows];  // [tail][rows together][vectors - 1][rows - 1]
};

template <class T, int... kRow>
constexpr TileTable<T> make_tiles(std::integer_sequence<int, kRow...>) noexcept {
  return {{{{{tile_of<T, kRow + 1, 1, false, masks_whole(kRow + 1)>()...},
             {tile_of<T, kRow + 1, 2, false, masks_whole(kRow + 1)>()...}},
            {{tile_of<T, kRow + 1, 1, true, masks_whole(kRow + 1)>()...},
             {tile_of<T, kRow + 1, 2, true, masks_whole(kRow + 1)>()...}}},
           {{{tile_of<T, kRow + 1, 1, false, true>()...}, {tile_of<T, kRow + 1, 2, false, true>()...}},
            {{tile_of<T, kRow + 1, 1, true, true>()...}, {tile_of<T, kRow + 1, 2, true, true>()...}}}}};
}

template <class T>
inline constexpr TileTable<T> kTiles = make_tiles<T>(std::make_integer_sequence<int, kTileRows>{});

// kTiles of each type, which matmul_f32_cpu.cc and matmul_f64_cpu.cc define. Other files use these, so that the micro-kernels are
// compiled once per instruction set.
extern const TileTable<float> tiles_f32;
extern const TileTable<double> tiles_f64;
template <class T>
GRADRING_INLINE const TileTable<T>& tiles_of() noexcept {
  if constexpr (sizeof(T) == 4) {
    return tiles_f32;
  } else {
    return tiles_f64;
  }
}

// Tiles that update: a weight's gradient is x' dy, so the rows of A lie together.
template <class T, class Update, int... kRow>
constexpr TileTable<T> make_updating_tiles(std::integer_sequence<int, kRow...>) noexcept {
  return {{{{},
            {{tile<T, kRow + 1, 1, true, masks_whole(kRow + 1), Update>...},
             {tile<T, kRow + 1, 2, true, masks_whole(kRow + 1), Update>...}}},
           {{}, {{tile<T, kRow + 1, 1, true, true, Update>...}, {tile<T, kRow + 1, 2, true, true, Update>...}}}}};
}

template <class T, class Update>
inline constexpr TileTable<T> kUpdatingTiles =
    make_updating_tiles<T, Update>(std::make_integer_sequence<int, kTileRows>{});

}  // namespace gradring::GRADRING_ISA_NAMESPACE
