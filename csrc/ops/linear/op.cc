// The registration of linear and linear_vjp.
#include "ops/activation/names.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul.h"
#include "ops/matrix_view.h"

namespace gradring {

namespace {

constexpr Attribute kAttributes[] = {
    {.name = "activation", .type = AttributeType::kChoice, .choices = kActivationNames},
};

Activation activation_of(const OpCall& call) noexcept { return static_cast<Activation>(call.integer(0)); }

std::string axis_of(const OpCall& call, int operand) {
  return call.operand_name(operand) + std::string(".shape[") + (call[operand].rank == 2 ? "1]" : "-1]");
}

void check_inner(const OpCall& call, int x, int w) {
  const int64_t inputs = call[w].shape[0];
  if (call[x].columns() != inputs) {
    refuse_shapes(call, w, x, axis_of(call, x) + " must be " + std::to_string(inputs));
  }
}

namespace forward {

enum { kX, kW, kB, kY, kPre };
// pre: what goes into the activation.
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .layout = Layout::kMatrix, .least_rank = 1},
    {.name = "w", .same_dtype = kX, .layout = Layout::kMatrix, .least_rank = 2, .most_rank = 2},
    {.name = "b", .same_dtype = kW, .optional = true},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .layout = Layout::kRows, .apart = true},
    {.name = "pre",
     .access = Access::kWrite,
     .same_dtype = kX,
     .optional = true,
     .layout = Layout::kRows,
     .apart = true,
     .rows_like = kY},
};

template <class T>
MatmulArguments<T> arguments(const OpCall& call) noexcept {
  const MatrixView x = matrix_view(call[kX]), w = matrix_view(call[kW]);
  MatmulArguments<T> g;
  g.m = x.rows, g.n = w.columns, g.k = x.columns;
  g.a = call[kX].as<const T>(), g.lda = x.leading, g.trans_a = x.transposed;
  g.b = call[kW].as<const T>(), g.ldb = w.leading, g.trans_b = w.transposed;
  if (call[kY]) g.c = call[kY].as<T>(), g.ldc = matrix_view(call[kY]).leading;
  g.epilogue.bias = call[kB].as<const T>();
  g.epilogue.activation = activation_of(call);
  g.epilogue.pre = call[kPre].as<T>();
  return g;
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  matmul(lane, arguments<T>(call));
}

void check(const OpCall& call) {
  check_inner(call, kX, kW);
  const int64_t outputs = call[kW].shape[1];
  if (!call[kB] || (call[kB].rank == 1 && call[kB].shape[0] == outputs)) return;
  refuse_shapes(call, kW, kB, call.operand_name(kB) + std::string(" must be (") + std::to_string(outputs) + ",)");
}

void shape(const OpCall& call, int, Shape* shape) {
  const Tensor& x = call[kX];
  shape->rank = x.rank;
  for (int axis = 0; axis + 1 < x.rank; ++axis) shape->extent[axis] = x.shape[axis];
  shape->extent[x.rank - 1] = call[kW].shape[1];
}

template <class T>
void work_of(const OpCall& call, int lanes, OpWork* work) {
  const auto g = arguments<T>(call);
  work->lanes = matmul_lanes(g, lanes);
  work->scratch = matmul_scratch(g, work->lanes);
  work->operations = product_operations(g.m, g.n, g.k + 16);
}
void work(const OpCall& call, int lanes, OpWork* work) {
  call[kX].dtype == Dtype::kFloat32 ? work_of<float>(call, lanes, work) : work_of<double>(call, lanes, work);
}

double flops(const OpCall& call) {
  const auto g = arguments<float>(call);
  return product_operations(g.m, g.n, g.k) + (call[kB] ? static_cast<double>(g.m * g.n) : 0.0);
}

}  // namespace forward

namespace vjp {

// y_or_pre: the output, or what went into the activation where derivative_needs_input.
enum { kDy, kX, kW, kSaved, kDx, kDw, kDb };
constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "x", .same_dtype = kDy, .layout = Layout::kMatrix, .least_rank = 1},
    {.name = "w", .same_dtype = kX, .layout = Layout::kMatrix, .least_rank = 2, .most_rank = 2},
    {.name = "y_or_pre", .same_dtype = kDy, .like = kDy, .optional = true},
    {.name = "dx",
     .access = Access::kWrite,
     .same_dtype = kDy,
     .like = kX,
     .optional = true,
     .layout = Layout::kRows,
     .apart = true},
    {.name = "dw",
     .access = Access::kWrite,
     .same_dtype = kDy,
     .like = kW,
     .optional = true,
     .layout = Layout::kRows,
     .apart = true},
    {.name = "db", .access = Access::kWrite, .same_dtype = kDy, .optional = true, .apart = true},
};

template <class T>
LinearVjpArguments<T> arguments(const OpCall& call) noexcept {
  const MatrixView x = matrix_view(call[kX]), w = matrix_view(call[kW]);
  LinearVjpArguments<T> p;
  p.rows = x.rows, p.in = x.columns, p.out = w.columns;
  p.dy = call[kDy].as<const T>(), p.dy_ld = p.out;
  p.x = call[kX].as<const T>(), p.x_ld = x.leading, p.trans_x = x.transposed;
  p.w = call[kW].as<const T>(), p.w_ld = w.leading, p.trans_w = w.transposed;
  p.activation = activation_of(call);
  if (p.activation != Activation::kNone) p.saved = call[kSaved].as<const T>(), p.saved_ld = p.out;
  if (call[kDx]) p.dx = call[kDx].as<T>(), p.dx_ld = matrix_view(call[kDx]).leading;
  if (call[kDw]) p.dw = call[kDw].as<T>(), p.dw_ld = matrix_view(call[kDw]).leading;
  p.db = call[kDb].as<T>();
  return p;
}

template <class T>
void gradient(const Lane& lane, const OpCall& call) noexcept {
  linear_vjp_gradient(lane, arguments<T>(call));
}
template <class T>
void products(const Lane& lane, const OpCall& call) noexcept {
  linear_vjp_products(lane, arguments<T>(call));
}

void check(const OpCall& call) {
  check_inner(call, kX, kW);
  const Tensor &dy = call[kDy], &x = call[kX];
  bool fits = dy.rank == x.rank && dy.columns() == call[kW].shape[1];
  for (int axis = 0; fits && axis + 1 < x.rank; ++axis) fits = dy.shape[axis] == x.shape[axis];
  if (!fits) {
    Shape wanted;
    wanted.rank = x.rank;
    for (int axis = 0; axis + 1 < x.rank; ++axis) wanted.extent[axis] = x.shape[axis];
    wanted.extent[x.rank - 1] = call[kW].shape[1];
    refuse_shapes(call, kX, kDy,
                  call.operand_name(kDy) + std::string(" must be ") + shape_text(wanted.rank, wanted.extent));
  }
  if (activation_of(call) == Activation::kNone || call[kSaved]) return;
  refuse(call, call.operand_name(kSaved) +
                   std::string(" is missing: an activation's derivative needs the layer's output, or for gelu and silu "
                               "what went into the activation (linear's pre=)"));
}

void shape(const OpCall& call, int, Shape* shape) {
  shape->rank = 1;
  shape->extent[0] = call[kW].shape[1];
}

template <class T>
void work_of(const OpCall& call, int lanes, OpWork* work) {
  const auto p = arguments<T>(call);
  work->lanes = linear_vjp_lanes(p, lanes);
  work->scratch = linear_vjp_scratch(p, work->lanes);
  work->operations = 2 * product_operations(p.rows, p.in, p.out);
}
void work(const OpCall& call, int lanes, OpWork* work) {
  call[kDy].dtype == Dtype::kFloat32 ? work_of<float>(call, lanes, work) : work_of<double>(call, lanes, work);
}

double flops(const OpCall& call) {
  const auto p = arguments<float>(call);
  const double product = product_operations(p.rows, p.in, p.out);
  return (p.dx ? product : 0) + (p.dw ? product : 0) + (p.db ? static_cast<double>(p.rows * p.out) : 0);
}

}  // namespace vjp

}  // namespace

extern const OpSchema linear_ops[] = {
    {.name = "linear",
     .operands = forward::kOperands,
     .attributes = kAttributes,
     .check = forward::check,
     .shape = forward::shape,
     .work = forward::work,
     .flops = forward::flops,
     .cpu = by_real<forward::run<float>, forward::run<double>>,
     .each = true},
    {.name = "linear_vjp",
     .operands = vjp::kOperands,
     .attributes = kAttributes,
     .check = vjp::check,
     .shape = vjp::shape,
     .work = vjp::work,
     .flops = vjp::flops,
     .cpu = by_real<vjp::gradient<float>, vjp::gradient<double>>,
     .cpu_second = by_real<vjp::products<float>, vjp::products<double>>,
     .each = true},
};
extern const size_t linear_op_count = std::size(linear_ops);

}  // namespace gradring
