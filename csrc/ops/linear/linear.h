// The backward pass of y = activation(x w + b). The forward pass is matmul with an epilogue.
#pragma once

#include "ops/matmul/matmul.h"

namespace gradring {

// g = dy activation'(saved);  dx = g wᵀ, dw = xᵀ g, db = column sums of g. Any of dx, dw, db may be null.
template <class T>
struct LinearVjpArguments {
  int64_t rows = 0, in = 0, out = 0;
  const T* dy = nullptr;  // rows x out
  int64_t dy_ld = 0;
  const T* x = nullptr;  // rows x in, or its transpose in memory
  int64_t x_ld = 0;
  bool trans_x = false;
  const T* w = nullptr;  // in x out, or its transpose in memory
  int64_t w_ld = 0;
  bool trans_w = false;
  Activation activation = Activation::kNone;
  const T* saved = nullptr;  // rows x out: the output, or the pre-activation where derivative_needs_input
  int64_t saved_ld = 0;
  T* dx = nullptr;
  int64_t dx_ld = 0;
  T* dw = nullptr;
  int64_t dw_ld = 0;
  T* db = nullptr;
  Products products = Products::kFma;
};

template <class T>
ScratchBytes linear_vjp_scratch(const LinearVjpArguments<T>& arguments, int lanes) noexcept;
template <class T>
int linear_vjp_lanes(const LinearVjpArguments<T>& arguments, int lanes) noexcept;
template <class T>
void linear_vjp(const Lane& lane, const LinearVjpArguments<T>& arguments) noexcept;

// The two halves of linear_vjp, for callers that separate them by the end of a run instead of a barrier. The first computes g
// and db, the second dx and dw.
template <class T>
void linear_vjp_gradient(const Lane& lane, const LinearVjpArguments<T>& arguments) noexcept;
template <class T>
void linear_vjp_products(const Lane& lane, const LinearVjpArguments<T>& arguments) noexcept;

}  // namespace gradring
