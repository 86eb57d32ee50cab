#include "ops/activation/activation_math.h"
#include "ops/activation/kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <Activation A, class T>
void forward(const T* x, T* y, int64_t n) noexcept {
  constexpr int64_t W = kWidth<T>;
  int64_t i = 0;
  for (; i + W <= n; i += W) store<T>(y + i, activate<A, T>(load<T>(x + i)));
  if (i < n) store_partial<T>(y + i, activate<A, T>(load_partial<T>(x + i, n - i)), n - i);
}

template <Activation A, class T>
void backward(const T* dy, const T* source, T* dx, int64_t n) noexcept {
  constexpr int64_t W = kWidth<T>;
  int64_t i = 0;
  for (; i + W <= n; i += W) store<T>(dx + i, activate_backward<A, T>(load<T>(dy + i), load<T>(source + i)));
  if (i == n) return;
  const Vec<T> last = activate_backward<A, T>(load_partial<T>(dy + i, n - i), load_partial<T>(source + i, n - i));
  store_partial<T>(dx + i, last, n - i);
}

template <class T>
void run_forward(const Lane& lane, const ActivationArguments<T>& g) noexcept {
  const Range part = split(lane, g.n, kFlatGrain);
  const T* x = g.x + part.begin;
  T* y = g.y + part.begin;
  const int64_t n = part.end - part.begin;
  switch (g.activation) {
    case Activation::kNone: return forward<Activation::kNone, T>(x, y, n);
    case Activation::kRelu: return forward<Activation::kRelu, T>(x, y, n);
    case Activation::kGelu: return forward<Activation::kGelu, T>(x, y, n);
    case Activation::kSilu: return forward<Activation::kSilu, T>(x, y, n);
    case Activation::kTanh: return forward<Activation::kTanh, T>(x, y, n);
    case Activation::kSigmoid: return forward<Activation::kSigmoid, T>(x, y, n);
    case Activation::kGeluErf: return forward<Activation::kGeluErf, T>(x, y, n);
  }
}

template <class T>
void run_vjp(const Lane& lane, const ActivationVjpArguments<T>& g) noexcept {
  const Range part = split(lane, g.n, kFlatGrain);
  const T* dy = g.dy + part.begin;
  const T* source = g.source + part.begin;
  T* dx = g.dx + part.begin;
  const int64_t n = part.end - part.begin;
  switch (g.activation) {
    case Activation::kNone: return backward<Activation::kNone, T>(dy, source, dx, n);
    case Activation::kRelu: return backward<Activation::kRelu, T>(dy, source, dx, n);
    case Activation::kGelu: return backward<Activation::kGelu, T>(dy, source, dx, n);
    case Activation::kSilu: return backward<Activation::kSilu, T>(dy, source, dx, n);
    case Activation::kTanh: return backward<Activation::kTanh, T>(dy, source, dx, n);
    case Activation::kSigmoid: return backward<Activation::kSigmoid, T>(dy, source, dx, n);
    case Activation::kGeluErf: return backward<Activation::kGeluErf, T>(dy, source, dx, n);
  }
}

}  // namespace

extern const ActivationKernel activation_kernel;
extern const ActivationVjpKernel activation_vjp_kernel;
const ActivationKernel activation_kernel = {run_forward<float>, run_forward<double>};
const ActivationVjpKernel activation_vjp_kernel = {run_vjp<float>, run_vjp<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
