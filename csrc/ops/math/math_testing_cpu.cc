#include "ops/math/math.h"
#include "ops/math/testing.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <class T, Vec<T> (*F)(Vec<T>) noexcept>
void map(const T* x, T* y, int64_t n) noexcept {
  constexpr int64_t W = kWidth<T>;
  for (int64_t i = 0; i < n; i += W) {
    const int64_t left = n - i < W ? n - i : W;
    store_partial<T>(y + i, F(load_partial<T>(x + i, left)), left);
  }
}

template <class T>
Vec<T> normal(Vec<T> x) noexcept {
  return math::normal<T>(x).below;
}
template <class T>
Vec<T> density(Vec<T> x) noexcept {
  return math::normal<T>(x).density;
}

template <class T>
constexpr MathTable<T> table() {
  return {map<T, math::exp<T>>,     map<T, math::log<T>>,      map<T, math::log1p_unit<T>>, map<T, math::tanh<T>>,
          map<T, math::sigmoid<T>>, map<T, math::softplus<T>>, map<T, normal<T>>,           map<T, density<T>>};
}

}  // namespace

extern const MathKernels math_kernels;
const MathKernels math_kernels = {table<float>(), table<double>()};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
