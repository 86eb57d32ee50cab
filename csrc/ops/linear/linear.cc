#include "ops/linear/linear.h"

#include <algorithm>

#include "ops/linear/kernels.h"
#include "runtime/round_up.h"

namespace gradring {

namespace {

template <class T>
constexpr bool has_gradient(const LinearVjpArguments<T>& p) noexcept {
  return p.activation != Activation::kNone;
}

template <class T>
size_t gradient_bytes(const LinearVjpArguments<T>& p) noexcept {
  return has_gradient(p) ? round_up(static_cast<size_t>(p.rows * p.out) * sizeof(T)) : 0;
}

template <class T>
MatmulArguments<T> dx_of(const LinearVjpArguments<T>& p, const T* gradient, int64_t ld) noexcept {
  MatmulArguments<T> g;
  g.m = p.rows, g.n = p.in, g.k = p.out;
  g.a = gradient, g.lda = ld;
  g.b = p.w, g.ldb = p.w_ld, g.trans_b = !p.trans_w;
  g.c = p.dx, g.ldc = p.dx_ld;
  g.products = p.products;
  return g;
}

template <class T>
MatmulArguments<T> dw_of(const LinearVjpArguments<T>& p, const T* gradient, int64_t ld) noexcept {
  MatmulArguments<T> g;
  g.m = p.in, g.n = p.out, g.k = p.rows;
  g.a = p.x, g.lda = p.x_ld, g.trans_a = !p.trans_x;
  g.b = gradient, g.ldb = ld;
  g.c = p.dw, g.ldc = p.dw_ld;
  g.products = p.products;
  return g;
}

template <class T>
T* own_gradient(const Lane& lane, const LinearVjpArguments<T>& p) noexcept {
  return has_gradient(p) ? reinterpret_cast<T*>(lane.shared_scratch()) : nullptr;
}

}  // namespace

template <class T>
ScratchBytes linear_vjp_scratch(const LinearVjpArguments<T>& p, int lanes) noexcept {
  ScratchBytes bytes;
  if (p.dx) bytes = matmul_scratch(dx_of<T>(p, nullptr, p.out), lanes);
  if (p.dw) {
    const ScratchBytes other = matmul_scratch(dw_of<T>(p, nullptr, p.out), lanes);
    bytes.per_lane = std::max(bytes.per_lane, other.per_lane);
    bytes.shared = std::max(bytes.shared, other.shared);
  }
  bytes.shared += gradient_bytes(p);
  return bytes;
}

template <class T>
int linear_vjp_lanes(const LinearVjpArguments<T>& p, int available) noexcept {
  int most = 1;
  if (p.dx) most = matmul_lanes(dx_of<T>(p, nullptr, p.out), available);
  if (p.dw) most = std::max(most, matmul_lanes(dw_of<T>(p, nullptr, p.out), available));
  return most;
}

template <class T>
void linear_vjp_gradient(const Lane& lane, const LinearVjpArguments<T>& p) noexcept {
  GRADRING_KERNELS(linear_gradient_kernel).template of<T>()(lane, {p, own_gradient(lane, p)});
}

template <class T>
void linear_vjp_products(const Lane& lane, const LinearVjpArguments<T>& p) noexcept {
  const T* const own = own_gradient(lane, p);
  const T* const gradient = own ? own : p.dy;
  const int64_t ld = own ? p.out : p.dy_ld;
  if (p.dx) matmul(lane, dx_of(p, gradient, ld));
  if (p.dw) matmul(lane, dw_of(p, gradient, ld));
}

template <class T>
void linear_vjp(const Lane& lane, const LinearVjpArguments<T>& p) noexcept {
  linear_vjp_gradient(lane, p);
  if (has_gradient(p)) lane.barrier();
  linear_vjp_products(lane, p);
}

template ScratchBytes linear_vjp_scratch(const LinearVjpArguments<float>&, int) noexcept;
template ScratchBytes linear_vjp_scratch(const LinearVjpArguments<double>&, int) noexcept;
template int linear_vjp_lanes(const LinearVjpArguments<float>&, int) noexcept;
template int linear_vjp_lanes(const LinearVjpArguments<double>&, int) noexcept;
template void linear_vjp_gradient(const Lane&, const LinearVjpArguments<float>&) noexcept;
template void linear_vjp_gradient(const Lane&, const LinearVjpArguments<double>&) noexcept;
template void linear_vjp_products(const Lane&, const LinearVjpArguments<float>&) noexcept;
template void linear_vjp_products(const Lane&, const LinearVjpArguments<double>&) noexcept;
template void linear_vjp(const Lane&, const LinearVjpArguments<float>&) noexcept;
template void linear_vjp(const Lane&, const LinearVjpArguments<double>&) noexcept;

}  // namespace gradring
