// Row by row: the simplest form that is right. Sums over k run in order for every element.
#include "ops/matmul/matmul_kernels.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

constexpr int64_t kRowBlock = 16;  // rows whose column sums are added first

template <class T>
T activate(Activation kind, T x) noexcept {
  switch (kind) {
    case Activation::kRelu: return x < 0 ? T(0) : x;
    case Activation::kGelu: return T(0.5) * x * (T(1) + T(__builtin_erf(double(x) * 0.70710678118654752440)));
    case Activation::kSilu: return x / (T(1) + T(__builtin_exp(-double(x))));
    case Activation::kTanh: return T(__builtin_tanh(double(x)));
    case Activation::kSigmoid: return T(1) / (T(1) + T(__builtin_exp(-double(x))));
    default: return x;
  }
}

template <class T>
T derivative(Activation kind, T s) noexcept {
  switch (kind) {
    case Activation::kRelu: return s > 0 ? T(1) : s != s ? s : T(0);
    case Activation::kGelu: {
      const double x = s;
      return T(0.5 * (1 + __builtin_erf(x * 0.70710678118654752440)) +
               x * 0.39894228040143267794 * __builtin_exp(-0.5 * x * x));
    }
    case Activation::kSilu: {
      const double g = 1 / (1 + __builtin_exp(-double(s)));
      return T(g * (1 + double(s) * (1 - g)));
    }
    case Activation::kTanh: return T(1) - s * s;
    case Activation::kSigmoid: return s * (T(1) - s);
    default: return T(1);
  }
}

template <class T>
ScratchBytes scratch(const MatmulArguments<T>& g, int) noexcept {
  if (!g.epilogue.column_sums) return {};
  return {0, static_cast<size_t>((g.m + kRowBlock - 1) / kRowBlock * g.n) * sizeof(T)};
}

template <class T>
int lanes(const MatmulArguments<T>& g, int available) noexcept {
  return double(g.m) * double(g.n) * double(g.k) < 262144 ? 1 : available;
}

template <class T>
void multiply_row(const MatmulArguments<T>& g, int64_t i) noexcept {
  T* c = g.c + i * g.ldc;
  if (!g.epilogue.accumulate)
    for (int64_t j = 0; j < g.n; ++j) c[j] = 0;
  for (int64_t p = 0; p < g.k; ++p) {
    const T a = g.trans_a ? g.a[p * g.lda + i] : g.a[i * g.lda + p];
    if (g.trans_b) {
      for (int64_t j = 0; j < g.n; ++j) c[j] += a * g.b[j * g.ldb + p];
    } else {
      for (int64_t j = 0; j < g.n; ++j) c[j] += a * g.b[p * g.ldb + j];
    }
  }
}

template <class T>
void finish_row(const MatmulArguments<T>& g, int64_t i, T* sums) noexcept {
  const MatmulEpilogue<T>& e = g.epilogue;
  T* c = g.c + i * g.ldc;
  for (int64_t j = 0; j < g.n; ++j) {
    T v = c[j];
    if (e.bias) v += e.bias[j];
    if (e.pre) e.pre[i * g.ldc + j] = v;
    v = activate(e.activation, v);
    if (e.mask != Activation::kNone) v *= derivative(e.mask, e.mask_source[i * e.mask_ld + j]);
    if (sums) sums[j] = i % kRowBlock == 0 ? v : sums[j] + v;
    c[j] = v;
  }
}

template <class T>
void run(const Lane& lane, const MatmulArguments<T>& g) noexcept {
  const Range rows = split(lane, g.m, kRowBlock);
  T* partial = g.epilogue.column_sums ? reinterpret_cast<T*>(lane.shared_scratch()) : nullptr;
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    multiply_row(g, i);
    finish_row(g, i, partial ? partial + i / kRowBlock * g.n : nullptr);
  }
  if (!partial) return;
  lane.barrier();
  const Range columns = split(lane, g.n, kWidth<T>);
  for (int64_t j = columns.begin; j < columns.end; ++j) {
    T sum = 0;
    for (int64_t block = 0; block * kRowBlock < g.m; ++block) sum += partial[block * g.n + j];
    g.epilogue.column_sums[j] = sum;
  }
}

}  // namespace

extern const MatmulKernels matmul_kernels;
const MatmulKernels matmul_kernels = {run<float>,      run<double>,  scratch<float>,
                                      scratch<double>, lanes<float>, lanes<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
