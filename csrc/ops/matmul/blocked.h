// The blocked product. Panels of B stay in the first and second cache, and blocks of A in the second. Lanes share nothing: each
// computes a rectangle of C from its own packed copies, so there is no barrier.
#pragma once

#include "ops/matmul/epilogue.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/tile.h"
#include "runtime/second_cache.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kL2Bytes = 1 << 20;  // the smallest second cache that blocks are made for
inline constexpr int64_t kMaxSteps = 4096;    // the most bytes of one row of a block of steps
inline constexpr int64_t kMaxVectors = 128;   // the most vectors in a block of columns
// The most bytes in a block of A that two or three panels use. A larger block spares nothing, because all of B stays in the second
// cache, and pushes out the rows of A that come next.
inline constexpr int64_t kShortBlockBytes = 1 << 18;

// How many bytes of the second cache a block of A gets: half of 1 MiB, and three quarters of what a larger one has beyond that. The
// rest is for two panels of B and for the rows of C.
GRADRING_INLINE int64_t block_bytes() noexcept {
  constexpr int64_t kMost = int64_t{4} << 20;
  const int64_t cache = larger(kL2Bytes, smaller(second_cache_bytes(), kMost));
  return kL2Bytes / 2 + (cache - kL2Bytes) / 4 * 3;
}

// How many tiles at most are in a block of A that has `steps` steps.
template <class T>
GRADRING_INLINE int64_t block_tiles_of(int64_t steps, int64_t bytes = block_bytes()) noexcept {
  return larger(2, bytes / (larger(1, steps) * kPackedRows<T> * static_cast<int64_t>(sizeof(T))));
}

// Whether C is computed one tile of rows after another, across all its columns, while the panels of B stay in the second cache: for
// a large C, and few steps per element. Then C is written row by row. If instead a panel of columns were multiplied by many tiles
// of rows, each would write two cache lines in rows that may lie a page apart, and writing C would take longer than the arithmetic.
template <class T>
GRADRING_INLINE bool goes_along_rows(const MatmulArguments<T>& g) noexcept {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  const int64_t vectors = divide_up(g.n, kWidth<T>);
  if (vectors <= 3 * kTileVectors || g.k * kBytes > kMaxSteps) return false;
  // The columns of a transposed A share cache lines, which must stay until the next tiles have read them.
  if (g.trans_a && g.k * kBytes > kMaxSteps / 4) return false;
  return g.m * g.n * kBytes > kL2Bytes / 2 && smaller(vectors, kMaxVectors) * kWidth<T> * g.k * kBytes <= block_bytes();
}

// How a product is divided. The boundaries of tiles and steps depend only on the shape.
struct Plan {
  int64_t row_tiles;    // how many tiles the rows are divided into; their heights are nearly equal
  int64_t vectors;      // how many vectors cover the columns of a row
  int64_t step_blocks;  // how many blocks k is divided into; their lengths are nearly equal
  int64_t steps;        // the length of the longest block
  int64_t block_tiles;  // how many tiles at most are in a block of A
  int lanes_down, lanes_across;
};

// Whether a rectangle that is `vectors` vectors of columns wide copies A.
template <class T>
GRADRING_INLINE bool packs_a(const MatmulArguments<T>& g, int64_t vectors) noexcept {
  // A transposed A of one tile lies in memory as a packed one does.
  if (g.trans_a && g.m <= kTileRows && g.lda == g.m) return false;
  // Rows whose distance is a multiple of half a page fall into the same few sets of the first cache.
  const bool crowded = !g.trans_a && g.lda * static_cast<int64_t>(sizeof(T)) % 2048 == 0 && g.k > 256 && vectors > 1;
  return crowded || (vectors > 3 * kTileVectors && (!g.trans_a || g.k > 96));
}

template <class T>
GRADRING_INLINE Plan make_plan(const MatmulArguments<T>& g, int lanes) noexcept {
  Plan plan;
  plan.row_tiles = divide_up(g.m, kTileRows);
  if (plan.row_tiles > 1 && plan.row_tiles < 16) plan.row_tiles += plan.row_tiles & 1;  // an even share for two lanes
  plan.vectors = divide_up(g.n, kWidth<T>);
  constexpr int64_t kStepLimit = kMaxSteps / static_cast<int64_t>(sizeof(T));
  plan.step_blocks = larger(1, divide_up(g.k, kStepLimit));
  plan.steps = divide_up(g.k, plan.step_blocks);
  plan.block_tiles = goes_along_rows(g) ? 1 : block_tiles_of<T>(plan.steps);
  if (plan.vectors <= 3 * kTileVectors && packs_a(g, plan.vectors)) {
    plan.block_tiles = smaller(plan.block_tiles, block_tiles_of<T>(plan.steps, kShortBlockBytes));
  }
  // Choose the rectangles by their cost, measured in vectors. Computing costs the product of the two sides; packing A or
  // transposing B costs a part of their sum; copying B during its first use costs very little. If the columns are cut and the rows
  // of C do not begin on cache lines, two lanes share a line in every row, and each write to it costs as much as about 200 vectors.
  constexpr int64_t kLine = 64;
  const bool lines_shared = !g.epilogue.consumer.take && (reinterpret_cast<uintptr_t>(g.c) % kLine != 0 ||
                                                          g.ldc * static_cast<int64_t>(sizeof(T)) % kLine != 0);
  plan.lanes_down = 1;
  plan.lanes_across = lanes;
  if (lanes == 1) return plan;
  double best = 1e300;
  for (int down = 1; down <= lanes; ++down) {
    if (lanes % down != 0) continue;
    if ((g.cut == Cut::kRows && down != lanes) || (g.cut == Cut::kColumns && down != 1)) continue;
    const double rows = static_cast<double>(divide_up(plan.row_tiles, down)) *
                        (static_cast<double>(g.m) / static_cast<double>(larger(1, plan.row_tiles)));
    const double vectors = static_cast<double>(divide_up(plan.vectors, lanes / down));
    const double pack_a = g.trans_b || packs_a(g, divide_up(plan.vectors, lanes / down)) ? 0.4 * rows : 0;
    const double cost = rows * vectors + pack_a + (g.trans_b ? 0.8 : 0.2) * vectors * kWidth<T>;
    const double shared = lines_shared && down < lanes ? 200 * rows / static_cast<double>(larger(1, g.k)) : 0;
    if (cost + shared < 0.99 * best) {
      best = cost + shared;
      plan.lanes_down = down;
      plan.lanes_across = lanes / down;
    }
  }
  return plan;
}

// How many elements of packed A belong to a step. Tiles of few rows lie close together, so that they stay in the first cache.
template <class T>
GRADRING_INLINE int64_t packed_rows(const MatmulArguments<T>& g, const Plan& plan) noexcept {
  const int64_t rows = divide_up(g.m, larger(1, plan.row_tiles));
  return rows <= kWidth<T> ? rows : kPackedRows<T>;
}

template <class T>
GRADRING_INLINE size_t blocked_scratch(const MatmulArguments<T>& g) noexcept {
  const Plan plan = make_plan(g, 1);
  const int64_t a = smaller(plan.row_tiles, plan.block_tiles) * kPackedRows<T>;
  const int64_t panels = divide_up(smaller(plan.vectors, kMaxVectors), kTileVectors) + 1;
  const int64_t b = (plan.row_tiles > plan.block_tiles ? panels : 2) * kTileColumns<T>;
  return static_cast<size_t>((a + b) * plan.steps + kTileColumns<T> + 64) * sizeof(T);
}

template <class T>
struct Rectangle {
  const MatmulArguments<T>& g;
  const Plan& plan;
  int64_t tile_begin = 0, tile_end = 0;      // its rows, in tiles
  int64_t vector_begin = 0, vector_end = 0;  // its columns, in vectors
  T* packed_a = nullptr;
  T* packed_b = nullptr;
  T* sums = nullptr;        // partial column sums, a row of n for each row tile, or null
  int64_t block_tiles = 1;  // how many tiles are in its blocks of A, which are nearly equal
  int64_t packed_rows = 0;  // how many elements of packed A belong to a step
  bool keep_tiles = false;  // packed tiles of A are used by more than one panel of B
  bool pack_a = false;
  bool keep_panels = false;  // panels of B are used by more than one block of A
  bool copy_b = false;

  GRADRING_INLINE int64_t row_of(int64_t tile) const noexcept { return g.m * tile / plan.row_tiles; }
  GRADRING_INLINE int64_t step_of(int64_t block) const noexcept { return g.k * block / plan.step_blocks; }
};

// What a panel of B does for itself and for the next panel.
template <class T>
struct PanelWork {
  bool pack_a = false;      // it is the first panel, so it packs A
  bool copied = false;      // the panel before it, or another block of A, has copied it
  T* copy_next = nullptr;   // where it copies the next panel, which has whole vectors, or null
  bool fetch_next = false;  // the next panel is packed: prefetch it into the second cache
};

// Multiplies one block of A by one panel of columns.
template <class T>
GRADRING_INLINE void multiply_panel(const Rectangle<T>& r, int64_t step, int64_t steps, int64_t tile_begin,
                                    int64_t tile_end, int64_t vector, int64_t vectors, T* panel,
                                    const PanelWork<T>& own) noexcept {
  const MatmulArguments<T>& g = r.g;
  const MatmulEpilogue<T>& e = g.epilogue;
  const int64_t column = vector * kWidth<T>;
  const int64_t columns = smaller(g.n - column, vectors * kWidth<T>);
  const bool last_steps = step + steps == g.k;
  const bool rows_together = r.pack_a || g.trans_a;
  const bool finish_here = last_steps && needs_finish(e);
  const bool consume = last_steps && e.consumer.take;
  // A tile that the consumer takes, and that needs no partial sums in C, stays in the first cache.
  alignas(64) T consumed[kTileRows * kTileColumns<T>];
  const bool in_passing = consume && step == 0 && !needs_finish(e);
  const bool tail = columns % kWidth<T> != 0;
  const auto* const updating =
      in_passing && rows_together ? static_cast<const TileTable<T>*>(e.consumer.updating_tiles) : nullptr;
  const auto& kernels = (updating ? *updating : tiles_of<T>()).kernel[tail][rows_together][vectors - 1];

  TileWork<T> work;
  work.a_stride = r.pack_a ? r.packed_rows : g.lda;
  work.steps = steps;
  work.ldc = in_passing ? kTileColumns<T> : g.ldc;
  work.add_to_c = step > 0 || e.accumulate;
  work.bias = last_steps && e.bias ? e.bias + column : nullptr;
  work.relu = last_steps && relu_in_tile(e);
  work.columns = columns;
  work.copy_b = nullptr;
  work.copy_stride = 0;
  work.ahead = nullptr;
  work.ahead_stride = own.copy_next ? g.ldb : kTileColumns<T>;
  work.ahead_steps = 0;
  work.ahead_to = nullptr;
  for (const T*& touched : work.touched) touched = nullptr;
  work.touched_ld = e.consumer.touched_ld;
  work.context = e.consumer.context;
  if (updating) work.ldc = e.consumer.touched_ld;
  if (g.trans_b) {
    if (!own.copied) pack_b_transposed(g.b + column * g.ldb + step, g.ldb, columns, steps, panel);
    work.b = panel;
    work.b_stride = kTileColumns<T>;
  } else if (!r.copy_b || !own.copied) {
    work.b = g.b + step * g.ldb + column;
    work.b_stride = g.ldb;
    if (r.copy_b) {
      work.copy_b = panel;
      work.copy_stride = kTileColumns<T>;
    }
  } else {
    work.b = panel;
    work.b_stride = kTileColumns<T>;
  }

  const int64_t first_ahead = work.copy_b ? tile_begin + 1 : tile_begin;
  for (int64_t t = tile_begin; t < tile_end; ++t) {
    const int64_t row = r.row_of(t), rows = r.row_of(t + 1) - row;
    const T* const a = g.trans_a ? g.a + step * g.lda + row : g.a + row * g.lda + step;
    if (r.pack_a) {
      T* const packed = r.packed_a + (r.keep_tiles ? (t - tile_begin) * r.packed_rows * steps : 0);
      if (own.pack_a) pack_a(a, g.lda, g.trans_a, rows, steps, packed, r.packed_rows);
      work.a = packed;
    } else {
      work.a = a;
    }
    const Block block{row, rows, column, columns};
    T* const c = in_passing ? consumed : g.c + row * g.ldc + column;
    work.c = c;
    if ((own.copy_next || own.fetch_next) && !work.copy_b) {
      // The tiles share this work equally, except one that copies its own panel.
      const int64_t begin = steps * (t - first_ahead) / (tile_end - first_ahead);
      work.ahead_steps = steps * (t + 1 - first_ahead) / (tile_end - first_ahead) - begin;
      if (own.copy_next) {
        work.ahead = g.b + (step + begin) * g.ldb + column + kTileColumns<T>;
        work.ahead_to = own.copy_next + begin * kTileColumns<T>;
      } else {
        work.ahead = panel + (steps + begin) * kTileColumns<T>;
      }
    }
    if (consume) {
      const int64_t at = row * e.consumer.touched_ld + column;
      for (int i = 0; i < 3; ++i) work.touched[i] = e.consumer.touched[i] ? e.consumer.touched[i] + at : nullptr;
      if (updating) {
        work.c = e.consumer.touched[0] + at;
        work.state = e.consumer.touched[1] + at;
      }
    }
    kernels[rows - 1](work);
    if (work.copy_b) {
      work.copy_b = nullptr;
      work.b = panel;
      work.b_stride = kTileColumns<T>;
    }
    if (finish_here) {
      finish(g, block, r.sums ? r.sums + t * g.n : nullptr, relu_in_tile(e));
    }
    if (consume && !updating) e.consumer.take(e.consumer.context, row, rows, column, columns, c, work.ldc);
  }
}

template <class T>
void multiply_rectangle(const Rectangle<T>& r) noexcept {
  for (int64_t vc = r.vector_begin; vc < r.vector_end; vc += kMaxVectors) {
    const int64_t vc_end = smaller(vc + kMaxVectors, r.vector_end);
    for (int64_t block = 0; block < r.plan.step_blocks; ++block) {
      const int64_t step = r.step_of(block), steps = r.step_of(block + 1) - step;
      for (int64_t t = r.tile_begin; t < r.tile_end; t += r.block_tiles) {
        const int64_t t_end = smaller(t + r.block_tiles, r.tile_end);
        const bool packed = t > r.tile_begin;  // all panels are
        T* panel = r.packed_b;
        T* other = panel + kTileColumns<T> * steps;
        PanelWork<T> own;
        for (int64_t v = vc; v < vc_end; v += kTileVectors) {
          // The rows of the next panel may lie far apart, and reading them then takes long. The tiles of this panel copy or fetch them
          // beside their arithmetic, which hides that time. Of two tiles, the first copies its own panel, which is then read once less.
          const int64_t whole = (v + 2 * kTileVectors) * kWidth<T>;
          const bool more = v + 2 * kTileVectors <= vc_end && whole <= r.g.n && t_end - t > 1;
          own.pack_a = r.pack_a && v == vc;
          own.copied = own.copied || packed;
          own.copy_next = more && r.copy_b && !packed && t_end - t > 2 ? other : nullptr;
          own.fetch_next = more && packed;
          multiply_panel(r, step, steps, t, t_end, v, smaller(kTileVectors, vc_end - v), panel, own);
          own.copied = own.copy_next != nullptr;
          if (r.keep_panels) {
            panel = other;
            other += kTileColumns<T> * steps;
          } else if (own.copied) {
            T* const used = panel;
            panel = other;
            other = used;
          }
        }
      }
    }
  }
}

// The most steps of a product whose columns before C's first whole cache lines are computed apart. With more steps, the arithmetic
// hides what stores take.
inline constexpr int64_t kFewSteps = 20;
// A panel of their own costs about as much as it saves where C's rows, times the square of the vectors in a row, are as many as this.
inline constexpr int64_t kFewVectors = 4096;

// How many columns of C lie before the first place at which all its rows begin a cache line, if they are worth computing apart. A store
// that touches two lines takes twice as long as one that fills a line, and NumPy's large arrays begin 16 bytes after a line.
template <class T>
GRADRING_INLINE int64_t columns_before_lines(const MatmulArguments<T>& g) noexcept {
  constexpr int64_t kLine = 64;
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  if constexpr (sizeof(Vec<T>) < kLine) return 0;
  const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(g.c) % kLine);
  // Partial sums of columns have rows of n, and a consumer's tiles do not go to C.
  if (beyond == 0 || beyond % kBytes != 0 || g.ldc * kBytes % kLine != 0) return 0;
  const int64_t vectors = g.n / kWidth<T>;
  if (vectors < 8 || g.m * vectors * vectors <= kFewVectors || g.k > kFewSteps) return 0;
  if (g.epilogue.column_sums || g.epilogue.consumer.take) return 0;
  return (kLine - beyond) / kBytes;
}

// The columns [begin, end) of a product.
template <class T>
GRADRING_INLINE MatmulArguments<T> columns_of(const MatmulArguments<T>& g, int64_t begin, int64_t end) noexcept {
  MatmulArguments<T> part = g;
  part.n = end - begin;
  part.b += g.trans_b ? begin * g.ldb : begin;
  part.c += begin;
  MatmulEpilogue<T>& e = part.epilogue;
  if (e.bias) e.bias += begin;
  if (e.pre) e.pre += begin;
  if (e.mask_source) e.mask_source += begin;
  return part;
}

// Computes a lane's rectangle of a product, or of some of its columns, by the plan of the whole.
template <class T>
void run_columns(const Lane& lane, const MatmulArguments<T>& g, const Plan& plan, T* sums) noexcept {
  const int down = lane.index % plan.lanes_down, across = lane.index / plan.lanes_down;
  Rectangle<T> r{g, plan};
  r.tile_begin = plan.row_tiles * down / plan.lanes_down;
  r.tile_end = plan.row_tiles * (down + 1) / plan.lanes_down;
  r.vector_begin = plan.vectors * across / plan.lanes_across;
  r.vector_end = plan.vectors * (across + 1) / plan.lanes_across;
  const int64_t tiles = r.tile_end - r.tile_begin, vectors = r.vector_end - r.vector_begin;
  if (tiles == 0 || vectors == 0) return;
  r.sums = sums;
  r.packed_b = reinterpret_cast<T*>(lane.scratch());
  r.block_tiles = divide_up(tiles, divide_up(tiles, plan.block_tiles));
  r.keep_panels = tiles > plan.block_tiles;
  const int64_t panels = r.keep_panels ? divide_up(smaller(vectors, kMaxVectors), kTileVectors) : 2;
  r.packed_a = r.packed_b + panels * kTileColumns<T> * plan.steps;
  r.pack_a = packs_a(g, vectors);
  r.packed_rows = packed_rows(g, plan);
  r.keep_tiles = vectors > kTileVectors;
  // Short rows of few steps already lie together in the first cache.
  r.copy_b = !g.trans_b && (r.keep_panels || (tiles >= 2 && g.k * g.ldb > 4096));
  multiply_rectangle(r);
}

template <class T>
void run_blocked(const Lane& lane, const MatmulArguments<T>& g, T* sums) noexcept {
  Plan plan = make_plan(g, lane.count);
  const int64_t before = columns_before_lines(g);
  if (before == 0) return run_columns(lane, g, plan, sums);
  plan.vectors = 1;
  run_columns(lane, columns_of(g, 0, before), plan, sums);
  plan.vectors = divide_up(g.n - before, kWidth<T>);
  run_columns(lane, columns_of(g, before, g.n), plan, sums);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE
