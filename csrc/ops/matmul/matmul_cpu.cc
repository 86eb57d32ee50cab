// Row by row: the simplest form that is right. Sums over k run in order for every element.
#include "ops/activation/activation_math.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

constexpr int64_t kRowBlock = 16;  // rows whose column sums are added first

template <class T>
T activate_one(Activation kind, T x) noexcept {
  const Vec<T> v = broadcast<T>(x);
  switch (kind) {
    case Activation::kRelu: return activate<Activation::kRelu, T>(v)[0];
    case Activation::kGelu: return activate<Activation::kGelu, T>(v)[0];
    case Activation::kSilu: return activate<Activation::kSilu, T>(v)[0];
    case Activation::kTanh: return activate<Activation::kTanh, T>(v)[0];
    case Activation::kSigmoid: return activate<Activation::kSigmoid, T>(v)[0];
    default: return x;
  }
}

template <class T>
T mask_one(Activation kind, T dy, T source) noexcept {
  const Vec<T> v = broadcast<T>(dy), s = broadcast<T>(source);
  switch (kind) {
    case Activation::kRelu: return activate_backward<Activation::kRelu, T>(v, s)[0];
    case Activation::kGelu: return activate_backward<Activation::kGelu, T>(v, s)[0];
    case Activation::kSilu: return activate_backward<Activation::kSilu, T>(v, s)[0];
    case Activation::kTanh: return activate_backward<Activation::kTanh, T>(v, s)[0];
    case Activation::kSigmoid: return activate_backward<Activation::kSigmoid, T>(v, s)[0];
    default: return dy;
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
    v = activate_one(e.activation, v);
    if (e.mask != Activation::kNone) v = mask_one(e.mask, v, e.mask_source[i * e.mask_ld + j]);
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
