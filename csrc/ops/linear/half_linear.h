// The backward pass of a linear layer whose operands are bfloat16 or float16. All sums are in float32.
#pragma once

#include "ops/bf16_matmul/bf16_matmul.h"

namespace gradring {

// g = dy activation'(saved), rounded to the dtype of dy;  dx = g wᵀ, dw = xᵀ g, db = column sums of g before it is rounded.
// Any of dx, dw, db may be absent.
struct HalfLinearVjpArguments {
  int64_t rows = 0, in = 0, out = 0;
  bool float16 = false;        // as in Bf16MatmulArguments
  const Bfloat* dy = nullptr;  // rows x out, contiguous
  const Bfloat* x = nullptr;   // rows x in, or its transpose in memory
  int64_t x_ld = 0;
  bool trans_x = false;
  const Bfloat* w = nullptr;  // in x out, or its transpose in memory
  int64_t w_ld = 0;
  bool trans_w = false;
  Activation activation = Activation::kNone;
  HalfOrFloat saved;  // rows x out, contiguous: the output, or the pre-activation where derivative_needs_input
  HalfOrFloat dx;
  int64_t dx_ld = 0;
  HalfOrFloat dw;
  int64_t dw_ld = 0;
  HalfOrFloat db;
};

ScratchBytes half_linear_vjp_scratch(const HalfLinearVjpArguments& arguments, int lanes) noexcept;
int half_linear_vjp_lanes(const HalfLinearVjpArguments& arguments, int lanes) noexcept;

// The first computes g and db. The second, which begins when all lanes have ended the first, computes dx and dw.
void half_linear_vjp_gradient(const Lane& lane, const HalfLinearVjpArguments& arguments) noexcept;
void half_linear_vjp_products(const Lane& lane, const HalfLinearVjpArguments& arguments) noexcept;

}  // namespace gradring
