#include "ops/sgd/kernels.h"
#include "ops/softmax/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

enum class Kind { kPlain, kMomentum, kNesterov };

template <Kind K, class T>
void update(const SgdArguments<T>& g, Range part) noexcept {
  const T lr = static_cast<T>(g.lr), momentum = static_cast<T>(g.momentum), decay = static_cast<T>(g.weight_decay);
  const T scale = static_cast<T>(g.grad_scale);
  T* param = g.param + part.begin;
  const T* grad = g.grad + part.begin;
  T* velocity = K == Kind::kPlain ? nullptr : g.velocity + part.begin;
  for_vectors<T>(
      part.end - part.begin, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
        const Vec<T> p = load_up_to<T>(param + i, n);
        Vec<T> d = load_up_to<T>(grad + i, n) * scale + p * decay;
        if constexpr (K != Kind::kPlain) {
          const Vec<T> v = load_up_to<T>(velocity + i, n) * momentum + d;
          store_up_to<T>(velocity + i, v, n);
          d = K == Kind::kNesterov ? v * momentum + d : v;
        }
        store_up_to<T>(param + i, p - d * lr, n);
      });
}

template <class T>
void run(const Lane& lane, const SgdArguments<T>& g) noexcept {
  const Range part = split(lane, g.n, kFlatGrain);
  if (g.momentum == 0) return update<Kind::kPlain, T>(g, part);
  if (g.nesterov) return update<Kind::kNesterov, T>(g, part);
  update<Kind::kMomentum, T>(g, part);
}

}  // namespace

extern const SgdKernel sgd_kernel;
const SgdKernel sgd_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
