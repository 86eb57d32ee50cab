// cuBLASLt's table for the software device. Algorithm 0 rounds a sum in double once; algorithm 1 rounds the halves of
// k, the first of which it keeps in the workspace, and adds them. So a test can see which of them ran, and whether two
// products wrongly share a workspace. Algorithm 1 needs operands at multiples of 16 bytes, as wide loads do; like the real
// library, the heuristic takes the operands for aligned if it is not told otherwise. Operands are rounded to tf32 if the product
// says so.
#include <algorithm>
#include <bit>

#include "cuda/cublaslt.h"
#include "cuda/device.h"
#include "cuda/software/control.h"

namespace gradring::cuda {

namespace {

constexpr uint64_t kMark = 0x736f667477617265;

struct Product {
  int compute, scale;
  int trans_a = lt::kNormal, trans_b = lt::kNormal;
};
struct Matrix {
  int type;
  uint64_t rows, columns;
  int64_t leading;
};
struct Preference {
  size_t workspace = 0;
  uint32_t alignment = 256;
};
constexpr uint32_t kNeededAlignment = 16;  // of algorithm 1

// The types of the operands and of the result, and what sums are rounded to.
template <class Operand, class Result, class Rounded>
struct Types {
  using In = Operand;
  using Out = Result;
  using Sum = Rounded;
};

// Column-major: d = op(a) op(b) + beta d, of m x n.
template <class T>
struct Arguments {
  int64_t m, n, k, lda, ldb, ldd;
  bool trans_a, trans_b;
  const typename T::In *a, *b;
  const typename T::Out* c;
  typename T::Out* d;
  typename T::Sum alpha, beta;
  typename T::Sum* workspace;
  bool tf32;
};

// To the nearest number of 10 bits behind the first one, and away from zero if two are as near, as cvt.rna.tf32 does.
__device__ float as_tf32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7f800000) == 0x7f800000) return x;
  return std::bit_cast<float>((bits + 0x1000) & 0xffffe000);
}
template <class T>
__device__ double operand(T x, bool tf32) {
  if constexpr (sizeof(T) == 4) {
    if (tf32) return static_cast<double>(as_tf32(x));
  }
  return static_cast<double>(device::widen(x));
}

template <bool kInHalves, class T>
__device__ void product(const Arguments<T>& g) {
  using Sum = typename T::Sum;
  for (int64_t at = device::thread_in_grid(); at < g.m * g.n; at += device::threads_in_grid()) {
    const int64_t row = at % g.m, column = at / g.m;
    const auto sum = [&](int64_t begin, int64_t end) {
      double total = 0;
      for (int64_t p = begin; p < end; ++p) {
        total += operand(g.a[g.trans_a ? p + row * g.lda : row + p * g.lda], g.tf32) *
                 operand(g.b[g.trans_b ? column + p * g.ldb : p + column * g.ldb], g.tf32);
      }
      return total;
    };
    Sum value;
    if constexpr (kInHalves) {
      g.workspace[at] = static_cast<Sum>(sum(0, g.k / 2));
      value = static_cast<Sum>(sum(g.k / 2, g.k)) + g.workspace[at];
    } else {
      value = static_cast<Sum>(sum(0, g.k));
    }
    value *= g.alpha;
    if (g.beta != 0) value += g.beta * device::widen(g.c[row + column * g.ldd]);
    g.d[row + column * g.ldd] = device::narrow<typename T::Out>(value);
  }
}
template <class T>
__global__ void whole_sums(Arguments<T> g) {
  product<false>(g);
}
template <class T>
__global__ void sums_in_halves(Arguments<T> g) {
  product<true>(g);
}

template <class Object, class... Values>
int make(LtDescription* made, Values... values) {
  if (!made) return lt::kInvalidValue;
  *made = new Object{values...};
  return lt::kSuccess;
}
template <class Object>
int drop(LtDescription gone) {
  delete static_cast<Object*>(gone);
  return lt::kSuccess;
}

int set_product(LtDescription product, int attribute, const void* value, size_t bytes) {
  auto& p = *static_cast<Product*>(product);
  if (bytes != sizeof(int)) return lt::kInvalidValue;
  const int given = *static_cast<const int*>(value);
  if (given != lt::kNormal && given != lt::kTransposed) return lt::kInvalidValue;
  if (attribute == lt::kDescTransA) return p.trans_a = given, lt::kSuccess;
  if (attribute == lt::kDescTransB) return p.trans_b = given, lt::kSuccess;
  return lt::kNotSupported;
}

int set_preference(LtDescription preference, int attribute, const void* value, size_t bytes) {
  auto& p = *static_cast<Preference*>(preference);
  if (attribute >= lt::kPreferAlignmentA && attribute <= lt::kPreferAlignmentD) {
    if (bytes != sizeof(uint32_t)) return lt::kInvalidValue;
    p.alignment = std::min(p.alignment, *static_cast<const uint32_t*>(value));
    return lt::kSuccess;
  }
  if (attribute != lt::kPreferWorkspaceBytes || bytes != sizeof(size_t)) return lt::kInvalidValue;
  p.workspace = *static_cast<const size_t*>(value);
  return lt::kSuccess;
}

// Finds the extents. Returns kInvalidValue if the matrices do not fit together.
int extents(const Product& p, const Matrix& a, const Matrix& b, const Matrix& d, int64_t* m, int64_t* n, int64_t* k) {
  const auto number = [](uint64_t x) { return static_cast<int64_t>(x); };
  *m = number(p.trans_a ? a.columns : a.rows), *k = number(p.trans_a ? a.rows : a.columns);
  *n = number(p.trans_b ? b.rows : b.columns);
  const bool fits = number(p.trans_b ? b.columns : b.rows) == *k && number(d.rows) == *m && number(d.columns) == *n;
  const bool to_float = (a.type == lt::kBfloat16 || a.type == lt::kFloat16) && d.type == lt::kReal32;
  if (a.type != b.type || (d.type != a.type && !to_float)) return lt::kNotSupported;
  if ((p.compute == lt::kCompute64) != (a.type == lt::kReal64)) return lt::kNotSupported;
  if (p.compute == lt::kComputeTf32 && a.type != lt::kReal32) return lt::kNotSupported;
  for (const Matrix& each : {a, b, d}) {
    if (each.leading < number(each.rows) || each.rows == 0 || each.columns == 0) return lt::kInvalidValue;
  }
  return fits ? lt::kSuccess : lt::kInvalidValue;
}

int heuristic(LtHandle, LtDescription product, LtDescription a, LtDescription b, LtDescription, LtDescription d,
              LtDescription preference, int wanted, LtHeuristic* found, int* count) {
  int64_t m, n, k;
  const auto& matrix = *static_cast<Matrix*>(d);
  const int status =
      extents(*static_cast<Product*>(product), *static_cast<Matrix*>(a), *static_cast<Matrix*>(b), matrix, &m, &n, &k);
  if (status != lt::kSuccess) return status;
  const size_t halves = static_cast<size_t>(m * n) * (matrix.type == lt::kReal64 ? 8 : 4);
  *count = 0;
  const auto& limits = *static_cast<Preference*>(preference);
  if (halves <= limits.workspace && limits.alignment >= kNeededAlignment && *count < wanted) {
    found[(*count)++] = {{{1, kMark}}, halves, lt::kSuccess, 1, {}};
  }
  if (*count < wanted) found[(*count)++] = {{{0, kMark}}, 0, lt::kSuccess, 1, {}};
  return lt::kSuccess;
}

int check(LtHandle, LtDescription product, LtDescription a, LtDescription b, LtDescription, LtDescription d,
          const LtAlgorithm* algorithm, LtHeuristic* found) {
  int64_t m, n, k;
  const auto& matrix = *static_cast<Matrix*>(d);
  const int status =
      extents(*static_cast<Product*>(product), *static_cast<Matrix*>(a), *static_cast<Matrix*>(b), matrix, &m, &n, &k);
  if (status != lt::kSuccess) return status;
  if (algorithm->data[1] != kMark || algorithm->data[0] > 1) return lt::kNotSupported;
  const size_t halves = static_cast<size_t>(m * n) * (matrix.type == lt::kReal64 ? 8 : 4);
  *found = {*algorithm, algorithm->data[0] == 1 ? halves : 0, lt::kSuccess, 1, {}};
  return lt::kSuccess;
}

template <class T>
int run_as(const Product& p, const Matrix& a, const Matrix& b, const Matrix& d, const void* alpha, const void* x,
           const void* y, const void* beta, const void* c, void* to, uint64_t algorithm, void* workspace, size_t bytes,
           LtStream stream) {
  using In = typename T::In;
  using Out = typename T::Out;
  using Sum = typename T::Sum;
  Arguments<T> g{};
  if (const int status = extents(p, a, b, d, &g.m, &g.n, &g.k); status != lt::kSuccess) return status;
  if (algorithm == 1 && (!workspace || bytes < static_cast<size_t>(g.m * g.n) * sizeof(Sum))) return lt::kInvalidValue;
  const auto bits = reinterpret_cast<uintptr_t>(x) | reinterpret_cast<uintptr_t>(y) | reinterpret_cast<uintptr_t>(to);
  if (algorithm == 1 && bits % kNeededAlignment != 0) return lt::kNotSupported;
  g.lda = a.leading, g.ldb = b.leading, g.ldd = d.leading, g.trans_a = p.trans_a != 0, g.trans_b = p.trans_b != 0;
  g.a = static_cast<const In*>(x), g.b = static_cast<const In*>(y), g.c = static_cast<const Out*>(c),
  g.d = static_cast<Out*>(to);
  g.alpha = *static_cast<const Sum*>(alpha), g.beta = *static_cast<const Sum*>(beta),
  g.workspace = static_cast<Sum*>(workspace), g.tf32 = p.compute == lt::kComputeTf32;
  const dim3 blocks(device::element_blocks(g.m * g.n, 1, 2)), threads(device::kElementThreads);
  const auto queue = static_cast<cudaStream_t>(stream);
  const int code = algorithm == 1 ? LAUNCH(sums_in_halves<T>, blocks, threads, 0, queue, g)
                                  : LAUNCH(whole_sums<T>, blocks, threads, 0, queue, g);
  return code == 0 ? lt::kSuccess : lt::kExecutionFailed;
}

int run(LtHandle, LtDescription product, const void* alpha, const void* a, LtDescription a_matrix, const void* b,
        LtDescription b_matrix, const void* beta, const void* c, LtDescription, void* d, LtDescription d_matrix,
        const LtAlgorithm* algorithm, void* workspace, size_t bytes, LtStream stream) {
  if (!algorithm || algorithm->data[1] != kMark || algorithm->data[0] > 1) return lt::kInvalidValue;
  const auto& p = *static_cast<Product*>(product);
  const auto &x = *static_cast<Matrix*>(a_matrix), &y = *static_cast<Matrix*>(b_matrix),
             &z = *static_cast<Matrix*>(d_matrix);
  using Bf16 = __nv_bfloat16;
  const auto as = [&]<class T>(T) {
    return run_as<T>(p, x, y, z, alpha, a, b, beta, c, d, algorithm->data[0], workspace, bytes, stream);
  };
  if (x.type == lt::kReal64) return as(Types<double, double, double>{});
  if (x.type == lt::kReal32) return as(Types<float, float, float>{});
  if (x.type == lt::kFloat16)
    return z.type == lt::kReal32 ? as(Types<__half, float, float>{}) : as(Types<__half, __half, float>{});
  return z.type == lt::kReal32 ? as(Types<Bf16, float, float>{}) : as(Types<Bf16, Bf16, float>{});
}

// A function of the table that is counted, and fails if it is told to.
template <class Name, auto kFunction>
struct Counted;
template <class Name, class... P, int (*kFunction)(P...)>
struct Counted<Name, kFunction> {
  static int call(P... given) {
    const int code = software::library_call(Name::text());
    return code != 0 ? code : kFunction(given...);
  }
};

int create(LtHandle* handle) { return make<int>(handle, 0); }
int create_product(LtDescription* made, int compute, int scale) { return make<Product>(made, compute, scale); }
int create_matrix(LtDescription* made, int type, uint64_t rows, uint64_t columns, int64_t leading) {
  return make<Matrix>(made, type, rows, columns, leading);
}
int create_preference(LtDescription* made) { return make<Preference>(made); }

#define GRADRING_COUNTED(name, function)          \
  [] {                                            \
    struct Name {                                 \
      static const char* text() { return #name; } \
    };                                            \
    return Counted<Name, function>::call;         \
  }()

}  // namespace

const CublasLt& software_cublaslt() noexcept {
  static const CublasLt table = {
      [] { return size_t{130000}; },
      GRADRING_COUNTED(cublasLtCreate, create),
      drop<int>,
      GRADRING_COUNTED(cublasLtMatmulDescCreate, create_product),
      drop<Product>,
      GRADRING_COUNTED(cublasLtMatmulDescSetAttribute, set_product),
      GRADRING_COUNTED(cublasLtMatrixLayoutCreate, create_matrix),
      drop<Matrix>,
      GRADRING_COUNTED(cublasLtMatmulPreferenceCreate, create_preference),
      drop<Preference>,
      GRADRING_COUNTED(cublasLtMatmulPreferenceSetAttribute, set_preference),
      GRADRING_COUNTED(cublasLtMatmulAlgoGetHeuristic, heuristic),
      GRADRING_COUNTED(cublasLtMatmulAlgoCheck, check),
      GRADRING_COUNTED(cublasLtMatmul, run),
  };
  return table;
}

}  // namespace gradring::cuda
