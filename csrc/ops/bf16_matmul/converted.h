// The product of small operands: they are converted to float32 as a whole, and the kernel that float32 has for the shape multiplies
// them. Each lane converts them for itself.
#pragma once

#include "ops/bf16_matmul/deliver.h"
#include "ops/matmul/matmul_kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

extern const MatmulKernels<float> matmul_kernels_f32;

// What a lane's scratch memory holds after that of the float32 product: A, B, and blocks of C before they are delivered.
struct ConvertedPlan {
  MatmulArguments<float> product;
  size_t before;  // bytes of the float32 product's own scratch memory
  int64_t a;      // elements of A; here and below, with room for the last store of a whole vector
  int64_t b;      // elements of B
  int64_t ldc;    // elements between rows of C
};

inline ConvertedPlan converted_plan(const Bf16MatmulArguments& g) noexcept {
  constexpr int64_t W = kWidth<float>;
  ConvertedPlan plan;
  MatmulArguments<float>& f = plan.product;
  f.m = g.m, f.n = g.n, f.k = g.k;
  f.trans_a = g.trans_a, f.lda = g.trans_a ? g.m : g.k;
  f.trans_b = g.trans_b, f.ldb = g.trans_b ? g.k : g.n;
  plan.before = divide_up(static_cast<int64_t>(matmul_kernels_f32.scratch(f, 1).per_lane), 64) * 64;
  plan.a = divide_up(g.m * g.k, W) * W + W;
  plan.b = divide_up(g.k * g.n, W) * W + W;
  plan.ldc = divide_up(g.n, W) * W;
  return plan;
}

inline size_t converted_scratch(const Bf16MatmulArguments& g) noexcept {
  const ConvertedPlan plan = converted_plan(g);
  return plan.before + static_cast<size_t>(plan.a + plan.b + (g.m + 1) * plan.ldc) * sizeof(float);
}

// Converts rows that lie `ld` elements apart; afterwards they follow each other without gaps.
inline void convert_rows(const Bfloat* from, int64_t ld, int64_t rows, int64_t length, float* to,
                         bool float16) noexcept {
  constexpr int64_t W = kWidth<float>;
  if (ld == length) length *= rows, rows = 1;
  const int64_t whole = length / W * W;
  for (; rows > 0; --rows, from += ld, to += length) {
    for (int64_t j = 0; j < whole && !float16; j += W) store(to + j, load_wide(from + j));
    for (int64_t j = float16 ? 0 : whole; j < length; j += W) store(to + j, load_wide(from + j, length - j, float16));
  }
}

// What happens to a block of the product when its sums are there. The rows of v are kept if there are column sums.
struct ConvertedEnd {
  const Bf16MatmulArguments* g;
  float* kept;

  static void take(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* sums,
                   int64_t ld) noexcept {
    const auto& end = *static_cast<const ConvertedEnd*>(context);
    // The product has written the block into this lane's scratch memory, and does not read it again.
    float* const tile = const_cast<float*>(sums);
    const Block block{row, rows, column, columns};
    if (!end.g->bias && !needs_more(*end.g)) return write_block(end.g->c, end.g->ldc, block, tile, ld, end.g->float16);
    deliver_large(*end.g, block, tile, ld, nullptr);
    if (end.kept) write_block({end.kept, false}, end.g->n, block, tile, ld, false);
  }
};

// `kept`: an m x n matrix for v, whose rows are the parts of column sums, or null.
inline void run_converted(const Lane& lane, const Bf16MatmulArguments& g, float* kept) noexcept {
  ConvertedPlan plan = converted_plan(g);
  MatmulArguments<float>& f = plan.product;
  float* const a = reinterpret_cast<float*>(lane.scratch() + plan.before);
  float* const b = a + plan.a;
  convert_rows(g.a, g.lda, g.trans_a ? g.k : g.m, f.lda, a, g.float16);
  convert_rows(g.b, g.ldb, g.trans_b ? g.n : g.k, f.ldb, b, g.float16);
  f.a = a;
  f.b = b;
  f.c = b + plan.b;
  f.ldc = plan.ldc;
  const ConvertedEnd end{&g, kept};
  if (g.c.half || g.bias || needs_more(g)) {
    f.epilogue.consumer.take = ConvertedEnd::take;
    f.epilogue.consumer.context = &end;
  } else {
    f.c = static_cast<float*>(g.c.data);
    f.ldc = g.ldc;
  }
  matmul_kernels_f32.run(lane, f);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE
