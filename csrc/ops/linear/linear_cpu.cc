#include "ops/activation/activation_math.h"
#include "ops/linear/kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

constexpr int kAbreast = 4;  // vectors of columns that are summed at the same time, to hide the latency of additions

// Adds up some columns from the first row to the last, so that the order of every sum is fixed.
template <Activation A, class T, int kVectors>
GRADRING_INLINE void columns(const LinearVjpArguments<T>& p, T* gradient, int64_t j, int64_t count) noexcept {
  constexpr int64_t W = kWidth<T>;
  const bool whole = count == kVectors * W;
  const auto get = [&](const T* from, int v) __attribute__((always_inline)) {
    return whole ? load<T>(from + v * W) : load_partial<T>(from + v * W, count - v * W);
  };
  Vec<T> sums[kVectors] = {};
  for (int64_t i = 0; i < p.rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Vec<T> g = get(p.dy + i * p.dy_ld + j, v);
      if constexpr (A != Activation::kNone) {
        g = activate_backward<A, T>(g, get(p.saved + i * p.saved_ld + j, v));
        T* const to = gradient + i * p.out + j + v * W;
        if (whole) {
          store<T>(to, g);
        } else {
          store_partial<T>(to, g, count - v * W);
        }
      }
      sums[v] += g;
    }
  }
  if (!p.db) return;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    if (whole) {
      store<T>(p.db + j + v * W, sums[v]);
    } else {
      store_partial<T>(p.db + j + v * W, sums[v], count - v * W);
    }
  }
}

template <Activation A, class T>
void gradient_with(const Lane& lane, const LinearVjpArguments<T>& p, T* gradient) noexcept {
  constexpr int64_t W = kWidth<T>;
  if (A == Activation::kNone && !p.db) return;
  const Range part = split(lane, p.out, W);
  int64_t j = part.begin;
  // Where small code counts for more, one vector at a time has to do.
  for (; !kSmallCode && j + kAbreast * W <= part.end; j += kAbreast * W)
    columns<A, T, kAbreast>(p, gradient, j, kAbreast * W);
  for (; j < part.end; j += W) columns<A, T, 1>(p, gradient, j, part.end - j < W ? part.end - j : W);
}

template <class T>
void run(const Lane& lane, const LinearGradientArguments<T>& g) noexcept {
  switch (g.vjp.activation) {
    case Activation::kNone: return gradient_with<Activation::kNone, T>(lane, g.vjp, g.gradient);
    case Activation::kRelu: return gradient_with<Activation::kRelu, T>(lane, g.vjp, g.gradient);
    case Activation::kGelu: return gradient_with<Activation::kGelu, T>(lane, g.vjp, g.gradient);
    case Activation::kSilu: return gradient_with<Activation::kSilu, T>(lane, g.vjp, g.gradient);
    case Activation::kTanh: return gradient_with<Activation::kTanh, T>(lane, g.vjp, g.gradient);
    case Activation::kSigmoid: return gradient_with<Activation::kSigmoid, T>(lane, g.vjp, g.gradient);
    case Activation::kGeluErf: return;  // linear_vjp does not accept it
  }
}

}  // namespace

extern const LinearGradientKernel linear_gradient_kernel;
const LinearGradientKernel linear_gradient_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
