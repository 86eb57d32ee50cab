// fp32 products as sums of products of bf16 pieces. Three pieces hold all 24 bits of a number; of the nine products of pieces the
// six largest are added, and what is left out is less than 2^-22 of |a||b|, usually far less. Two pieces hold 16 bits, and three
// products are added.
//
// C is divided into blocks of 32 x 32, and k into blocks of kMaxPieceSteps at most; the boundaries depend only on the shape. The
// sum over a block of steps is made in the tile unit, or, where the numbers of the two panels are such that pieces would not give what
// fp32 gives (pieces_hold), by fp32 multiply-adds. So one unusual number in 32 rows or columns changes the last
// bits of the results of its 31 neighbours. The bits never depend on the number of lanes. Those of sums made in the unit or by its
// emulation are the same on all machines; those of multiply-adds are the same where the processor has fused ones.
#pragma once

#include "ops/matmul/run.h"
#include "ops/tiles/cut.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kPanel = 2 * kTileSide;    // rows, or columns, of a block of C
inline constexpr int64_t kMaxPieceSteps = 512;      // the most steps in a block of k
inline constexpr int64_t kBlockBytes = 768 << 10;   // the most bytes of packed A, which stay in the second cache
inline constexpr int64_t kStripBytes = 6144 << 10;  // the most bytes of packed B

struct PiecesPlan {
  int64_t row_panels, column_panels;
  int64_t step_blocks;  // how many blocks k is divided into
  int64_t steps;        // the length of all but the last, a multiple of 32
  int64_t panel_elements;
  int64_t block_panels, strip_panels;  // how many panels of A, and of B, are packed at a time
  int lanes_down, lanes_across;
};

GRADRING_INLINE PiecesPlan pieces_plan(const MatmulArguments<float>& g, int pieces, int lanes) noexcept {
  PiecesPlan plan;
  plan.row_panels = divide_up(g.m, kPanel);
  plan.column_panels = divide_up(g.n, kPanel);
  plan.step_blocks = larger(1, divide_up(g.k, kMaxPieceSteps));
  plan.steps = divide_up(divide_up(g.k, plan.step_blocks), kTileDepth) * kTileDepth;
  plan.step_blocks = larger(1, divide_up(g.k, larger(1, plan.steps)));
  plan.panel_elements = kPanel * plan.steps * pieces;
  const int64_t bytes = larger(1, plan.panel_elements * 2);
  plan.block_panels = larger(2, kBlockBytes / bytes);
  plan.strip_panels = larger(2, kStripBytes / bytes);
  // Where all of packed B fits into the second cache, one row of blocks follows another, so that a consumer's arrays are read and
  // written along their rows, as the hardware's prefetcher expects.
  if (g.epilogue.consumer.take && plan.step_blocks == 1 && plan.column_panels * bytes <= kBlockBytes) {
    plan.block_panels = 1;
  }
  plan.lanes_down = 1;
  plan.lanes_across = lanes;
  if (lanes == 1) return plan;
  // A lane packs both sides of its rectangle; that takes about twice as long per panel as one block of C.
  double best = 1e300;
  for (int down = 1; down <= lanes; ++down) {
    if (lanes % down != 0) continue;
    if ((g.cut == Cut::kRows && down != lanes) || (g.cut == Cut::kColumns && down != 1)) continue;
    const auto rows = static_cast<double>(divide_up(plan.row_panels, down));
    const auto columns = static_cast<double>(divide_up(plan.column_panels, lanes / down));
    const double cost = rows * columns + 2 * (rows + columns);
    if (cost >= 0.99 * best) continue;
    best = cost;
    plan.lanes_down = down;
    plan.lanes_across = lanes / down;
  }
  return plan;
}

// The memory of a lane: packed A, packed B, their exponents, and a panel of B for multiply-adds.
struct PiecesMemory {
  int64_t a_panels, b_panels;
  size_t a_bytes, b_bytes, exponent_bytes, plain_bytes;
};

GRADRING_INLINE size_t in_lines(size_t bytes) noexcept { return (bytes + 63) & ~size_t{63}; }

GRADRING_INLINE PiecesMemory pieces_memory(const PiecesPlan& plan) noexcept {
  PiecesMemory memory;
  memory.a_panels = smaller(plan.row_panels, plan.block_panels);
  // The rectangle of a lane may have fewer panels, but never more.
  memory.b_panels = smaller(plan.column_panels, plan.row_panels > plan.block_panels ? plan.strip_panels : 2);
  memory.a_bytes = static_cast<size_t>(memory.a_panels * plan.panel_elements) * 2;
  memory.b_bytes = static_cast<size_t>(memory.b_panels * plan.panel_elements) * 2;
  memory.exponent_bytes = in_lines(static_cast<size_t>(memory.a_panels + memory.b_panels) * sizeof(Exponents));
  memory.plain_bytes = static_cast<size_t>(plan.steps * kTileColumns<float>) * sizeof(float);
  return memory;
}

// Multiplies a block by fp32 multiply-adds: out (rows 32 apart) = op(A) op(B) over `steps` steps. `panel` is space for B.
inline void multiply_plain(const MatmulArguments<float>& g, const Block& block, int64_t step, int64_t steps,
                           float* panel, float* out) noexcept {
  TileWork<float> work{};
  work.a_stride = g.lda;
  work.steps = steps;
  work.ldc = kPanel;
  for (int64_t j = 0; j < block.columns; j += kTileColumns<float>) {
    const int64_t column = block.column + j;
    work.columns = smaller(kTileColumns<float>, block.columns - j);
    if (g.trans_b) {
      pack_b_transposed(g.b + column * g.ldb + step, g.ldb, work.columns, steps, panel);
      work.b = panel, work.b_stride = kTileColumns<float>;
    } else {
      work.b = g.b + step * g.ldb + column, work.b_stride = g.ldb;
    }
    const int64_t vectors = divide_up(work.columns, kWidth<float>);
    const bool tail = work.columns % kWidth<float> != 0;
    for (int64_t i = 0; i < block.rows; i += kTileRows) {
      const int64_t row = block.row + i, rows = smaller(kTileRows, block.rows - i);
      work.a = g.trans_a ? g.a + step * g.lda + row : g.a + row * g.lda + step;
      work.c = out + i * kPanel + j;
      tiles_of<float>().kernel[tail][g.trans_a][vectors - 1][rows - 1](work);
    }
  }
}

// C = block (+ C) (+ bias), and relu, for vectors of whole blocks and of those at the edge.
GRADRING_INLINE void add_block(const MatmulArguments<float>& g, const Block& block, const float* from, bool add_to_c,
                               bool with_bias, bool relu, float* to, int64_t to_ld) noexcept {
  constexpr int64_t W = kWidth<float>;
  const Vec<float> zero{};
  for (int64_t j = 0; j < block.columns; j += W) {
    const Tail<float> tail(smaller(W, block.columns - j));
    const Vec<float> bias = with_bias ? tail.load(g.epilogue.bias + block.column + j) : zero;
    for (int64_t i = 0; i < block.rows; ++i) {
      Vec<float> v = load(from + i * kPanel + j);
      if (add_to_c) v += tail.load(g.c + (block.row + i) * g.ldc + block.column + j);
      if (with_bias) v += bias;
      if (relu) v = v < zero ? zero : v;
      tail.store(to + i * to_ld + j, v);
    }
  }
}

// The packed panel that the products of a block of A with one panel of B fetch into the second cache: each block of steps of a product
// fetches so many rows of 128 bytes.
struct Fetch {
  const char* from = nullptr;
  int64_t rows = 0;
};

// What is done beside the products of a block: a part of packing the next panel of B, and of what the consumer does with the block
// before. The tile unit leaves the vector units idle, and waiting for memory takes longer than both.
template <int kPieces>
struct Beside {
  static constexpr int64_t kTakenRows = 4;  // at least so many at a time

  PanelPacker<kPieces> packer;
  int64_t turns = 1, turn = 0;  // of the products of the panel

  const TileConsumer<float>* consumer = nullptr;  // null: the product has none
  Block taken{};                                  // the block that waits for it, whose first `rows_taken` rows are done
  int64_t rows_taken = 0;
  Block touched{};  // the block that is being computed
  int64_t rows_touched = 0;
  int64_t rows_each = kPanel;
  int now = 0;  // the sums that are being computed
  alignas(64) float sums[2][kPanel * kPanel];

  void take(int64_t rows) noexcept {
    const int64_t more = smaller(rows, taken.rows - rows_taken);
    if (more <= 0) return;
    consumer->take(consumer->context, taken.row + rows_taken, more, taken.column, taken.columns,
                   sums[1 - now] + rows_taken * kPanel, kPanel);
    rows_taken += more;
  }
  void touch(int64_t rows) noexcept {
    const int64_t end = smaller(rows_touched + rows, touched.rows);
    for (; rows_touched < end; ++rows_touched) {
      const int64_t at = (touched.row + rows_touched) * consumer->touched_ld + touched.column;
      for (float* const array : consumer->touched) {
        if (!array) continue;
        __builtin_prefetch(array + at, 0, 2);
        __builtin_prefetch(array + at + kTileSide, 0, 2);
        __builtin_prefetch(array + at + touched.columns - 1, 0, 2);
      }
    }
  }
  // Gives the consumer the rest of the block that waits, and lets `block`, whose sums are made, wait.
  void swap(const Block& block) noexcept {
    take(kPanel);
    taken = block, rows_taken = 0, now = 1 - now;
  }

  static void some(void* context) noexcept {
    auto& self = *static_cast<Beside*>(context);
    ++self.turn;
    self.packer.pack(self.packer.parts() * smaller(self.turn, self.turns) / self.turns);
    if (!self.consumer) return;
    self.touch(self.rows_each);
    self.take(self.rows_each);
  }
};

template <int kPieces>
struct PiecesRectangle {
  const MatmulArguments<float>& g;
  const PiecesPlan& plan;
  const TileFunctions& tiles;
  float* sums;   // partial column sums, a row of n for each panel of rows, or null
  float* plain;  // space for multiply_plain
  int32_t steps_exponent;

  // One block of C, over steps [step, step + steps).
  GRADRING_INLINE void multiply(const Block& block, int64_t step, int64_t steps, const uint16_t* a,
                                const Exponents& a_range, const uint16_t* b, const Exponents& b_range,
                                const Fetch& fetch, int64_t number, Beside<kPieces>& beside) const noexcept {
    const MatmulEpilogue<float>& e = g.epilogue;
    const bool last = step + steps == g.k;
    const bool finish_here = last && needs_finish(e);
    const bool relu = last && relu_in_tile(e);
    const bool with_bias = last && e.bias;
    const bool add_to_c = step > 0 || e.accumulate;
    const bool consume = last && e.consumer.take;
    const bool whole = block.rows == kPanel && block.columns == kPanel;
    float* const out = beside.sums[beside.now];
    TileBlockWork work;
    work.beside = Beside<kPieces>::some, work.context = &beside;
    work.down = block.rows > kTileSide ? 2 : 1, work.across = block.columns > kTileSide ? 2 : 1;
    work.a = a, work.b = b;
    work.a_down = work.b_across = kPieces * kTileElements;
    work.a_along = work.down * kPieces * kTileElements, work.b_along = work.across * kPieces * kTileElements;
    work.a_piece = work.b_piece = kTileElements;
    work.step_blocks = divide_up(steps, kTileDepth);
    work.c = out, work.ldc = kPanel;
    const bool direct = whole && !add_to_c && !with_bias && !relu && !(consume && !finish_here);
    if (direct) work.c = g.c + block.row * g.ldc + block.column, work.ldc = g.ldc;
    if (fetch.from) {
      work.fetch = fetch.from + number * work.step_blocks * fetch.rows * 128;
      work.fetch_stride = 128, work.fetch_advance = fetch.rows * 128, work.fetch_rows = static_cast<int>(fetch.rows);
    }
    if (consume) {
      beside.consumer = &e.consumer;
      beside.touched = block, beside.rows_touched = 0;
      beside.rows_each =
          larger(Beside<kPieces>::kTakenRows, divide_up(kPanel, larger(1, work.step_blocks * kBeside[kPieces - 1])));
    } else if (step > 0) {
      for (int64_t i = 0; i < block.rows; ++i) {
        const float* const row = g.c + (block.row + i) * g.ldc + block.column;
        __builtin_prefetch(row, 1);
        __builtin_prefetch(row + block.columns - 1, 1);
      }
    }
    if (pieces_hold(a_range, b_range, steps_exponent)) {
      tiles.multiply[kPieces - 1](work);
    } else {
      multiply_plain(g, block, step, steps, plain, out);
      if (direct) add_block(g, block, out, false, false, false, work.c, work.ldc);
    }
    float* const c = g.c + block.row * g.ldc + block.column;
    if (consume && !finish_here) {
      if (add_to_c || with_bias || relu) add_block(g, block, out, add_to_c, with_bias, relu, out, kPanel);
      return beside.swap(block);
    }
    if (!direct) add_block(g, block, out, add_to_c, with_bias, relu, c, g.ldc);
    if (finish_here) {
      finish(g, block, sums ? sums + block.row / kPanel * g.n : nullptr, relu_in_tile(e));
      if (consume) hand_over(g, block);
    }
  }

  void run(const Range& rows, const Range& columns, std::byte* memory) const noexcept {
    const PiecesMemory sizes = pieces_memory(plan);
    auto* const a = reinterpret_cast<uint16_t*>(memory);
    auto* const b = reinterpret_cast<uint16_t*>(memory + sizes.a_bytes);
    auto* const a_range = reinterpret_cast<Exponents*>(memory + sizes.a_bytes + sizes.b_bytes);
    auto* const b_range = a_range + sizes.a_panels;
    const bool fetches = g.k * g.n * static_cast<int64_t>(sizeof(float)) > kL2Bytes / 2;
    const bool keep = rows.end - rows.begin > plan.block_panels;  // panels of B serve more than one block of A
    Beside<kPieces> beside;
    const Side a_side{g.a, g.lda, g.m, g.k, !g.trans_a, true}, b_side{g.b, g.ldb, g.n, g.k, g.trans_b, false};
    for (int64_t strip = columns.begin; strip < columns.end; strip += plan.strip_panels) {
      const int64_t strip_end = smaller(strip + plan.strip_panels, columns.end);
      for (int64_t step = 0; step < g.k; step += plan.steps) {
        const int64_t steps = smaller(plan.steps, g.k - step);
        for (int64_t first = rows.begin; first < rows.end; first += plan.block_panels) {
          const int64_t end = smaller(first + plan.block_panels, rows.end);
          const int64_t blocks = (end - first) * divide_up(steps, kTileDepth);  // of 32 steps, for a panel of B
          for (int64_t across = strip; across < strip_end; ++across) {
            const int64_t column = across * kPanel, width = smaller(kPanel, g.n - column);
            const auto packer = [&](int64_t from, uint16_t * to) __attribute__((always_inline)) {
              return PanelPacker<kPieces>(b_side, from, smaller(kPanel, g.n - from), step, steps, to);
            };
            const int64_t kept = keep ? across - strip : (across - strip) % 2;
            uint16_t* const b_panel = b + kept * plan.panel_elements;
            const bool packs = !keep || first == rows.begin;
            if (packs) {
              if (across == strip) beside.packer = packer(column, b_panel);
              b_range[kept] = beside.packer.finish();
            }
            Fetch fetch;
            beside.packer = {};
            if (across + 1 < strip_end) {
              if (packs) {
                const int64_t next = keep ? kept + 1 : 1 - kept;
                beside.packer = packer(column + kPanel, b + next * plan.panel_elements);
                beside.turn = 0;
                beside.turns = larger(1, blocks * kBeside[kPieces - 1]);
              } else if (fetches && end - first > 1) {
                fetch = {reinterpret_cast<const char*>(b_panel + plan.panel_elements),
                         divide_up(plan.panel_elements * 2, blocks * 128)};
              }
            }
            for (int64_t down = first; down < end; ++down) {
              const int64_t row = down * kPanel, height = smaller(kPanel, g.m - row);
              uint16_t* const a_panel = a + (down - first) * plan.panel_elements;
              if (across == strip) {
                a_range[down - first] = pack_panel<kPieces>(a_side, row, height, step, steps, a_panel);
              }
              multiply({row, height, column, width}, step, steps, a_panel, a_range[down - first], b_panel,
                       b_range[kept], fetch, down - first, beside);
            }
          }
        }
      }
    }
    beside.swap({});
  }
};

template <int kPieces>
void multiply_rectangles(const Lane& lane, const MatmulArguments<float>& g, float* sums) noexcept {
  const PiecesPlan plan = pieces_plan(g, kPieces, lane.count);
  const int down = lane.index % plan.lanes_down, across = lane.index / plan.lanes_down;
  const Range rows = {plan.row_panels * down / plan.lanes_down, plan.row_panels * (down + 1) / plan.lanes_down};
  const Range columns = {plan.column_panels * across / plan.lanes_across,
                         plan.column_panels * (across + 1) / plan.lanes_across};
  if (rows.begin == rows.end || columns.begin == columns.end) return;
  const PiecesMemory sizes = pieces_memory(plan);
  auto* const plain = reinterpret_cast<float*>(lane.scratch() + sizes.a_bytes + sizes.b_bytes + sizes.exponent_bytes);
  int32_t steps_exponent = 0;
  while ((int64_t{1} << steps_exponent) < g.k) ++steps_exponent;
  const TileFunctions& tiles = active_tiles();
  tiles.configure(kTileSide);
  PiecesRectangle<kPieces>{g, plan, tiles, sums, plain, steps_exponent}.run(rows, columns, lane.scratch());
  tiles.release();
}

GRADRING_INLINE int pieces_of(const MatmulArguments<float>& g) noexcept {
  return g.products == Products::kPieces2 ? 2 : 3;
}

inline ScratchBytes pieces_scratch(const MatmulArguments<float>& g, int) noexcept {
  const PiecesPlan plan = pieces_plan(g, pieces_of(g), 1);
  const PiecesMemory sizes = pieces_memory(plan);
  ScratchBytes bytes;
  bytes.per_lane = sizes.a_bytes + sizes.b_bytes + sizes.exponent_bytes + sizes.plain_bytes;
  if (g.epilogue.column_sums) bytes.shared = static_cast<size_t>(plan.row_panels * g.n) * sizeof(float);
  return bytes;
}

inline int pieces_lanes(const MatmulArguments<float>& g, int available) noexcept {
  const double most = double(g.m) * double(g.n) * double(g.k) / 262144.0;
  return most >= available ? available : most < 2 ? 1 : static_cast<int>(most);
}

inline void run_pieces(const Lane& lane, const MatmulArguments<float>& g) noexcept {
  float* const sums = g.epilogue.column_sums ? reinterpret_cast<float*>(lane.shared_scratch()) : nullptr;
  if (g.products == Products::kPieces2) {
    multiply_rectangles<2>(lane, g, sums);
  } else {
    multiply_rectangles<3>(lane, g, sums);
  }
  if (!sums) return;
  lane.barrier();
  add_sums(lane, g, sums, divide_up(g.m, kPanel));
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE
