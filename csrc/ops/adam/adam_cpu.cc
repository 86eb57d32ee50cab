#include "ops/adam/bias_correction.h"
#include "ops/adam/kernels.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <bool Decoupled, class T>
void update(const AdamArguments<T>& g, Range part) noexcept {
  const AdamFactors factors = adam_factors(g.step, g.lr, g.beta1, g.beta2);
  const T beta1 = static_cast<T>(g.beta1), rest1 = static_cast<T>(1 - g.beta1);
  const T beta2 = static_cast<T>(g.beta2), rest2 = static_cast<T>(1 - g.beta2);
  const T step_size = static_cast<T>(factors.step_size), root = static_cast<T>(factors.root);
  const T eps = static_cast<T>(g.eps), scale = static_cast<T>(g.grad_scale);
  const T decay = static_cast<T>(Decoupled ? 1 - g.lr * g.weight_decay : g.weight_decay);
  T* param = g.param + part.begin;
  const T* grad = g.grad + part.begin;
  T* first = g.m + part.begin;
  T* second = g.v + part.begin;
  for_vectors<T>(
      part.end - part.begin, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        Vec<T> p = load_up_to<T>(param + i, n);
        Vec<T> d = load_up_to<T>(grad + i, n) * scale;
        if constexpr (Decoupled) {
          p = p * decay;
        } else {
          d = d + p * decay;
        }
        const Vec<T> m = load_up_to<T>(first + i, n) * beta1 + d * rest1;
        const Vec<T> v = load_up_to<T>(second + i, n) * beta2 + d * d * rest2;
        store_up_to<T>(first + i, m, n);
        store_up_to<T>(second + i, v, n);
        store_up_to<T>(param + i, p - m * step_size / (square_root<T>(v) * root + eps), n);
      });
}

template <class T>
void run(const Lane& lane, const AdamArguments<T>& g) noexcept {
  const Range part = split(lane, g.n, kFlatGrain);
  if (g.decoupled) return update<true, T>(g, part);
  update<false, T>(g, part);
}

}  // namespace

extern const AdamKernel adam_kernel;
const AdamKernel adam_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
