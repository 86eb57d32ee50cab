// The registration of matmul: op(a) op(b), where op transposes if its flag says so.
#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/bf16_matmul/half_or_float.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/products_attribute.h"
#include "ops/matrix_view.h"

namespace gradring {

namespace {

enum { kA, kB, kOut };
constexpr Operand kOperands[] = {
    {.name = "a", .dtypes = kProductDtypes, .layout = Layout::kMatrix, .least_rank = 2, .most_rank = 2},
    {.name = "b", .same_dtype = kA, .layout = Layout::kMatrix, .least_rank = 2, .most_rank = 2},
    {.name = "out",
     .access = Access::kWrite,
     .same_dtype = kA,
     .or_float32 = true,
     .layout = Layout::kRows,
     .apart = true},
};
enum { kTransA, kTransB, kProducts };
constexpr Attribute kAttributes[] = {
    {.name = "trans_a", .type = AttributeType::kFlag},
    {.name = "trans_b", .type = AttributeType::kFlag},
    kProductsAttribute,
};

int64_t extent(const Tensor& tensor, bool trans, int axis) noexcept { return tensor.shape[trans ? 1 - axis : axis]; }

template <class T>
MatmulArguments<T> arguments(const OpCall& call) noexcept {
  MatrixView a = matrix_view(call[kA]), b = matrix_view(call[kB]);
  if (call.flag(kTransA)) a = transposed(a);
  if (call.flag(kTransB)) b = transposed(b);
  MatmulArguments<T> g;
  g.m = a.rows, g.n = b.columns, g.k = a.columns;
  g.a = call[kA].as<const T>(), g.lda = a.leading, g.trans_a = a.transposed;
  g.b = call[kB].as<const T>(), g.ldb = b.leading, g.trans_b = b.transposed;
  g.products = products_of(call, kProducts);
  if (call[kOut]) g.c = call[kOut].as<T>(), g.ldc = matrix_view(call[kOut]).leading;
  return g;
}

Bf16MatmulArguments half_arguments(const OpCall& call) noexcept {
  const MatmulArguments<Bfloat> as = arguments<Bfloat>(call);
  Bf16MatmulArguments g = product_of(as, call[kA].dtype);
  g.c = half_or_float(call[kOut]);
  return g;
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  matmul(lane, arguments<T>(call));
}
void run_half(const Lane& lane, const OpCall& call) noexcept { bf16_matmul(lane, half_arguments(call)); }

void check(const OpCall& call) {
  if (extent(call[kA], call.flag(kTransA), 1) == extent(call[kB], call.flag(kTransB), 0)) return;
  refuse_shapes(call, kA, kB, "inner dimensions differ");
}

void shape(const OpCall& call, int, Shape* shape) {
  shape->rank = 2;
  shape->extent[0] = extent(call[kA], call.flag(kTransA), 0);
  shape->extent[1] = extent(call[kB], call.flag(kTransB), 1);
}

template <class T>
void work_of(const OpCall& call, int lanes, OpWork* work) {
  const auto g = arguments<T>(call);
  work->lanes = matmul_lanes(g, lanes);
  work->scratch = matmul_scratch(g, work->lanes);
  work->operations = product_operations(g.m, g.n, g.k);
}
void work(const OpCall& call, int lanes, OpWork* work) {
  if (is_narrow(call[kA].dtype)) return half_product_work(half_arguments(call), lanes, 0, work);
  call[kA].dtype == Dtype::kFloat32 ? work_of<float>(call, lanes, work) : work_of<double>(call, lanes, work);
}

double flops(const OpCall& call) {
  const auto g = arguments<float>(call);
  return product_operations(g.m, g.n, g.k);
}

}  // namespace

extern const OpSchema matmul_ops[] = {
    {.name = "matmul",
     .operands = kOperands,
     .attributes = kAttributes,
     .check = check,
     .shape = shape,
     .work = work,
     .flops = flops,
     .cpu = by_product<run<float>, run<double>, run_half>,
     .each = true},
};
extern const size_t matmul_op_count = std::size(matmul_ops);

}  // namespace gradring
