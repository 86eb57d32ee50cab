#include "ops/linear/half_linear.h"

#include <algorithm>

#include "ops/linear/half_kernels.h"
#include "runtime/round_up.h"

namespace gradring {

namespace {

bool has_gradient(const HalfLinearVjpArguments& p) noexcept { return p.activation != Activation::kNone; }

size_t gradient_bytes(const HalfLinearVjpArguments& p) noexcept {
  return has_gradient(p) ? round_up(static_cast<size_t>(p.rows * p.out) * sizeof(Bfloat)) : 0;
}

Bf16MatmulArguments dx_of(const HalfLinearVjpArguments& p, const Bfloat* gradient) noexcept {
  Bf16MatmulArguments g;
  g.m = p.rows, g.n = p.in, g.k = p.out, g.float16 = p.float16;
  g.a = gradient, g.lda = p.out;
  g.b = p.w, g.ldb = p.w_ld, g.trans_b = !p.trans_w;
  g.c = p.dx, g.ldc = p.dx_ld;
  return g;
}

Bf16MatmulArguments dw_of(const HalfLinearVjpArguments& p, const Bfloat* gradient) noexcept {
  Bf16MatmulArguments g;
  g.m = p.in, g.n = p.out, g.k = p.rows, g.float16 = p.float16;
  g.a = p.x, g.lda = p.x_ld, g.trans_a = !p.trans_x;
  g.b = gradient, g.ldb = p.out;
  g.c = p.dw, g.ldc = p.dw_ld;
  return g;
}

Bfloat* own_gradient(const Lane& lane, const HalfLinearVjpArguments& p) noexcept {
  return has_gradient(p) ? reinterpret_cast<Bfloat*>(lane.shared_scratch()) : nullptr;
}

}  // namespace

ScratchBytes half_linear_vjp_scratch(const HalfLinearVjpArguments& p, int lanes) noexcept {
  ScratchBytes bytes;
  if (p.dx) bytes = bf16_matmul_scratch(dx_of(p, nullptr), lanes);
  if (p.dw) {
    const ScratchBytes other = bf16_matmul_scratch(dw_of(p, nullptr), lanes);
    bytes.per_lane = std::max(bytes.per_lane, other.per_lane);
  }
  bytes.shared = gradient_bytes(p);
  return bytes;
}

int half_linear_vjp_lanes(const HalfLinearVjpArguments& p, int available) noexcept {
  int most = 1;
  if (p.dx) most = bf16_matmul_lanes(dx_of(p, nullptr), available);
  if (p.dw) most = std::max(most, bf16_matmul_lanes(dw_of(p, nullptr), available));
  return most;
}

void half_linear_vjp_gradient(const Lane& lane, const HalfLinearVjpArguments& p) noexcept {
  GRADRING_KERNELS(half_gradient_kernel)(lane, p, own_gradient(lane, p));
}

void half_linear_vjp_products(const Lane& lane, const HalfLinearVjpArguments& p) noexcept {
  const Bfloat* const own = own_gradient(lane, p);
  const Bfloat* const gradient = own ? own : p.dy;
  if (p.dx) bf16_matmul(lane, dx_of(p, gradient));
  if (p.dw) bf16_matmul(lane, dw_of(p, gradient));
}

}  // namespace gradring
