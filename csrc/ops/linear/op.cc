// The registration of linear and linear_vjp, and of the products that a program's backward pass is made of: linear_dx, the
// gradient with respect to the input, and linear_dw, the gradient with respect to the weight.
#include <algorithm>

#include "ops/activation/names.h"
#include "ops/bf16_matmul/half_or_float.h"
#include "ops/linear/half_linear.h"
#include "ops/linear/linear.h"
#include "ops/linear/parts.h"
#include "ops/linear/weight_product.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/products_attribute.h"
#include "ops/matrix_view.h"

namespace gradring {

namespace {

enum { kActivation, kProducts };
constexpr Attribute kAttributes[] = {
    {.name = "activation", .type = AttributeType::kChoice, .choices = kActivationNames},
    kProductsAttribute,
};

Activation activation_of(const OpCall& call) noexcept { return static_cast<Activation>(call.integer(kActivation)); }

std::string axis_of(const OpCall& call, int operand) {
  return call.operand_name(operand) + std::string(".shape[") + (call[operand].rank == 2 ? "1]" : "-1]");
}

void check_inner(const OpCall& call, int x, int w) {
  const int64_t inputs = call[w].shape[0];
  if (call[x].columns() != inputs) {
    refuse_shapes(call, w, x, axis_of(call, x) + " must be " + std::to_string(inputs));
  }
}

constexpr double kAloneMultiplications = 262144;  // these take less time than a hand-over between two lanes

// Makes the shape of operand a, but with `columns` as the extent of the last axis.
void with_columns(const Tensor& a, int64_t columns, Shape* shape) {
  shape->rank = a.rank;
  for (int axis = 0; axis + 1 < a.rank; ++axis) shape->extent[axis] = a.shape[axis];
  shape->extent[a.rank - 1] = columns;
}

namespace forward {

enum { kX, kW, kB, kY, kPre, kParts };
// `pre` receives the input of the activation. `parts` is memory for a product that is summed in two parts.
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kProductDtypes, .layout = Layout::kMatrix, .least_rank = 1},
    {.name = "w", .same_dtype = kX, .layout = Layout::kMatrix, .least_rank = 2, .most_rank = 2},
    {.name = "b", .same_dtype = kW, .or_float32 = true, .optional = true},
    {.name = "y",
     .access = Access::kWrite,
     .same_dtype = kX,
     .or_float32 = true,
     .layout = Layout::kRows,
     .apart = true},
    {.name = "pre",
     .access = Access::kWrite,
     .same_dtype = kX,
     .or_float32 = true,
     .optional = true,
     .layout = Layout::kRows,
     .apart = true,
     .rows_like = kY},
    {.name = "parts", .access = Access::kWrite, .same_dtype = kX, .optional = true, .apart = true, .undefined = true},
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
  g.products = products_of(call, kProducts);
  return g;
}

Bf16MatmulArguments half_arguments(const OpCall& call) noexcept {
  Bf16MatmulArguments g = product_of(arguments<Bfloat>(call), call[0].dtype);
  g.c = half_or_float(call[kY]);
  g.bias = half_or_float(call[kB]);
  g.pre = half_or_float(call[kPre]);
  g.activation = activation_of(call);
  return g;
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  const auto g = arguments<T>(call);
  if (call[kParts]) return run_parts(lane, g, call[kParts].as<T>());
  matmul(lane, g);
}
void run_half(const Lane& lane, const OpCall& call) noexcept { bf16_matmul(lane, half_arguments(call)); }

void check(const OpCall& call) {
  check_inner(call, kX, kW);
  const int64_t outputs = call[kW].shape[1];
  const Activation activation = activation_of(call);
  if (call[kParts] && is_narrow(call[kX].dtype)) {
    refuse(call, std::string("parts is given: then x must be float32 or float64, is ") + dtype_name(call[kX].dtype));
  }
  if (call[kParts] && (call[kPre] || (activation != Activation::kNone && activation != Activation::kRelu))) {
    refuse(call, "parts is given: then the activation must be none or relu, and pre must be absent");
  }
  if (call[kParts] && call[kY] && call[kY].strides && matrix_view(call[kY]).leading != outputs) {
    refuse(call, "parts is given: then the rows of y must lie side by side");
  }
  if (!call[kB] || (call[kB].rank == 1 && call[kB].shape[0] == outputs)) return;
  refuse_shapes(call, kW, kB, call.operand_name(kB) + std::string(" must be (") + std::to_string(outputs) + ",)");
}

void shape(const OpCall& call, int operand, Shape* shape) {
  with_columns(call[kX], call[kW].shape[1], shape);
  if (operand != kParts) return;
  for (int axis = shape->rank++; axis > 0; --axis) shape->extent[axis] = shape->extent[axis - 1];
  shape->extent[0] = 2;
}

template <class T>
void work_of(const OpCall& call, int lanes, OpWork* work) {
  const auto g = arguments<T>(call);
  product_work(g, lanes, kAloneMultiplications, work);
  if (!call[kParts]) return;
  // The two parts may be multiplied in different ways, of which each needs memory of its own size.
  const ScratchBytes first = matmul_scratch(part_of(g, 0, static_cast<T*>(nullptr)), lanes);
  const ScratchBytes second = matmul_scratch(part_of(g, 1, static_cast<T*>(nullptr)), lanes);
  work->scratch = {std::max(first.per_lane, second.per_lane), std::max(first.shared, second.shared)};
}
void work(const OpCall& call, int lanes, OpWork* work) {
  if (is_narrow(call[kX].dtype)) {
    return half_product_work(half_arguments(call), lanes, kAloneMultiplications, work);
  }
  call[kX].dtype == Dtype::kFloat32 ? work_of<float>(call, lanes, work) : work_of<double>(call, lanes, work);
}

double flops(const OpCall& call) {
  const auto g = arguments<float>(call);
  return product_operations(g.m, g.n, g.k) + (call[kB] ? static_cast<double>(g.m * g.n) : 0.0);
}
// The bytes of `parts` count twice, because the op writes them and reads them again.
double bytes(const OpCall& call) {
  const Tensor& parts = call[kParts];
  const double once = parts ? static_cast<double>(parts.elements()) * static_cast<double>(size_of(parts.dtype)) : 0;
  return all_operand_bytes(call) + 2 * once;
}

}  // namespace forward

namespace vjp {

// `y_or_pre` is the output, or, if derivative_needs_input, the input of the activation.
enum { kDy, kX, kW, kSaved, kDx, kDw, kDb };
constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kProductDtypes, .least_rank = 1},
    {.name = "x", .same_dtype = kDy, .layout = Layout::kMatrix, .least_rank = 1},
    {.name = "w", .same_dtype = kX, .layout = Layout::kMatrix, .least_rank = 2, .most_rank = 2},
    {.name = "y_or_pre", .same_dtype = kDy, .or_float32 = true, .like = kDy, .optional = true},
    {.name = "dx",
     .access = Access::kWrite,
     .same_dtype = kDy,
     .or_float32 = true,
     .like = kX,
     .optional = true,
     .layout = Layout::kRows,
     .apart = true},
    {.name = "dw",
     .access = Access::kWrite,
     .same_dtype = kDy,
     .or_float32 = true,
     .like = kW,
     .optional = true,
     .layout = Layout::kRows,
     .apart = true},
    {.name = "db", .access = Access::kWrite, .same_dtype = kDy, .or_float32 = true, .optional = true, .apart = true},
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
  p.products = products_of(call, kProducts);
  return p;
}

HalfLinearVjpArguments half_arguments(const OpCall& call) noexcept {
  const MatrixView x = matrix_view(call[kX]), w = matrix_view(call[kW]);
  HalfLinearVjpArguments p;
  p.float16 = call[kDy].dtype == Dtype::kFloat16;
  p.rows = x.rows, p.in = x.columns, p.out = w.columns;
  p.dy = call[kDy].as<const Bfloat>();
  p.x = call[kX].as<const Bfloat>(), p.x_ld = x.leading, p.trans_x = x.transposed;
  p.w = call[kW].as<const Bfloat>(), p.w_ld = w.leading, p.trans_w = w.transposed;
  p.activation = activation_of(call);
  if (p.activation != Activation::kNone) p.saved = half_or_float(call[kSaved]);
  p.dx = half_or_float(call[kDx]), p.dw = half_or_float(call[kDw]), p.db = half_or_float(call[kDb]);
  if (call[kDx]) p.dx_ld = matrix_view(call[kDx]).leading;
  if (call[kDw]) p.dw_ld = matrix_view(call[kDw]).leading;
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
void half_gradient(const Lane& lane, const OpCall& call) noexcept {
  half_linear_vjp_gradient(lane, half_arguments(call));
}
void half_products(const Lane& lane, const OpCall& call) noexcept {
  half_linear_vjp_products(lane, half_arguments(call));
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
void half_work(const OpCall& call, int lanes, OpWork* work) {
  const HalfLinearVjpArguments p = half_arguments(call);
  work->lanes = half_linear_vjp_lanes(p, lanes);
  work->scratch = half_linear_vjp_scratch(p, work->lanes);
  work->operations = 2 * product_operations(p.rows, p.in, p.out);
}
void work(const OpCall& call, int lanes, OpWork* work) {
  switch (call[kDy].dtype) {
    case Dtype::kFloat32: return work_of<float>(call, lanes, work);
    case Dtype::kFloat64: return work_of<double>(call, lanes, work);
    default: return half_work(call, lanes, work);
  }
}

double flops(const OpCall& call) {
  const auto p = arguments<float>(call);
  const double product = product_operations(p.rows, p.in, p.out);
  return (p.dx ? product : 0) + (p.dw ? product : 0) + (p.db ? static_cast<double>(p.rows * p.out) : 0);
}

}  // namespace vjp

namespace dx {

// dx = dy w', times the derivative, at `source`, of the activation of the layer before, if it has one.
enum { kDy, kW, kSource, kDx, kColumnSums };
constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kProductDtypes, .least_rank = 1},
    {.name = "w", .same_dtype = kDy, .least_rank = 2, .most_rank = 2},
    {.name = "source", .same_dtype = kDy, .or_float32 = true, .like = kDx, .optional = true},
    {.name = "dx", .access = Access::kWrite, .same_dtype = kDy, .or_float32 = true, .apart = true},
    {.name = "column_sums",
     .access = Access::kWrite,
     .same_dtype = kDy,
     .or_float32 = true,
     .optional = true,
     .apart = true,
     .column_sums_of = kDx},
};

template <class T>
MatmulArguments<T> arguments(const OpCall& call) noexcept {
  MatmulArguments<T> g;
  g.m = call[kDy].rows(), g.n = call[kW].shape[0], g.k = call[kW].shape[1];
  g.a = call[kDy].as<const T>(), g.lda = g.k;
  g.b = call[kW].as<const T>(), g.ldb = g.k, g.trans_b = true;
  g.c = call[kDx].as<T>(), g.ldc = g.n;
  g.cut = Cut::kColumns;
  g.products = products_of(call, kProducts);
  g.epilogue.mask = activation_of(call);
  g.epilogue.mask_source = call[kSource].as<const T>(), g.epilogue.mask_ld = g.n;
  g.epilogue.column_sums = call[kColumnSums].as<T>();
  return g;
}

Bf16MatmulArguments half_arguments(const OpCall& call) noexcept {
  Bf16MatmulArguments g = product_of(arguments<Bfloat>(call), call[0].dtype);
  g.c = half_or_float(call[kDx]);
  g.mask = activation_of(call);
  g.mask_source = half_or_float(call[kSource]), g.mask_ld = g.n;
  g.column_sums = half_or_float(call[kColumnSums]);
  return g;
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  matmul(lane, arguments<T>(call));
}
void run_half(const Lane& lane, const OpCall& call) noexcept { bf16_matmul(lane, half_arguments(call)); }

void check(const OpCall& call) {
  if (call[kDy].columns() != call[kW].shape[1]) {
    refuse_shapes(call, kW, kDy, axis_of(call, kDy) + " must be " + std::to_string(call[kW].shape[1]));
  }
  if ((activation_of(call) != Activation::kNone) == static_cast<bool>(call[kSource])) return;
  refuse(call, call[kSource] ? "source is given, and no activation whose derivative is to be taken there"
                             : "source is missing: an activation's derivative needs it");
}

void shape(const OpCall& call, int operand, Shape* shape) {
  with_columns(call[kDy], call[kW].shape[0], shape);
  if (operand == kColumnSums) shape->extent[0] = call[kW].shape[0], shape->rank = 1;
}

void work(const OpCall& call, int lanes, OpWork* work) {
  if (is_narrow(call[kDy].dtype)) {
    return half_product_work(half_arguments(call), lanes, kAloneMultiplications, work);
  }
  call[kDy].dtype == Dtype::kFloat32 ? product_work(arguments<float>(call), lanes, kAloneMultiplications, work)
                                     : product_work(arguments<double>(call), lanes, kAloneMultiplications, work);
}

double flops(const OpCall& call) {
  const double n = static_cast<double>(call[kDx].elements());
  const double product = 2 * n * static_cast<double>(call[kW].shape[1]);
  return product + (call[kSource] ? n : 0) + (call[kColumnSums] ? n : 0);
}

}  // namespace dx

namespace dw {

enum { kX, kDy, kDw };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kProductDtypes, .least_rank = 1},
    {.name = "dy", .same_dtype = kX, .least_rank = 1},
    {.name = "dw", .access = Access::kWrite, .same_dtype = kX, .or_float32 = true, .apart = true},
};

constexpr Attribute kProductAttributes[] = {kProductsAttribute};

template <class T>
MatmulArguments<T> arguments(const OpCall& call) noexcept {
  return weight_product<T>(call[kX], call[kDy], call[kDw], products_of(call, 0));
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  matmul(lane, arguments<T>(call));
}

Bf16MatmulArguments half_arguments(const OpCall& call) noexcept {
  Bf16MatmulArguments g = product_of(arguments<Bfloat>(call), call[0].dtype);
  g.c = half_or_float(call[kDw]);
  return g;
}
void run_half(const Lane& lane, const OpCall& call) noexcept { bf16_matmul(lane, half_arguments(call)); }

void check(const OpCall& call) { check_same_rows(call, kX, kDy); }

void shape(const OpCall& call, int, Shape* shape) {
  shape->rank = 2;
  shape->extent[0] = call[kX].columns(), shape->extent[1] = call[kDy].columns();
}

void work(const OpCall& call, int lanes, OpWork* work) {
  if (is_narrow(call[kX].dtype)) {
    return half_product_work(half_arguments(call), lanes, kAloneMultiplications, work);
  }
  call[kX].dtype == Dtype::kFloat32 ? product_work(arguments<float>(call), lanes, kAloneMultiplications, work)
                                    : product_work(arguments<double>(call), lanes, kAloneMultiplications, work);
}

double flops(const OpCall& call) {
  return product_operations(call[kX].columns(), call[kDy].columns(), call[kX].rows());
}

}  // namespace dw

}  // namespace

extern const OpSchema linear_ops[] = {
    {.name = "linear",
     .operands = forward::kOperands,
     .attributes = kAttributes,
     .check = forward::check,
     .shape = forward::shape,
     .work = forward::work,
     .flops = forward::flops,
     .bytes = forward::bytes,
     .cpu = by_product<forward::run<float>, forward::run<double>, forward::run_half>,
     .each = true,
     .phases = phase::kForward,
     .epilogue = {.attribute = 0, .result = forward::kY, .other = forward::kPre}},
    {.name = "linear_vjp",
     .operands = vjp::kOperands,
     .attributes = kAttributes,
     .check = vjp::check,
     .shape = vjp::shape,
     .work = vjp::work,
     .flops = vjp::flops,
     .cpu = by_product<vjp::gradient<float>, vjp::gradient<double>, vjp::half_gradient>,
     .cpu_second = by_product<vjp::products<float>, vjp::products<double>, vjp::half_products>,
     .each = true,
     .phases = 0},
    {.name = "linear_dx",
     .operands = dx::kOperands,
     .attributes = kAttributes,
     .check = dx::check,
     .shape = dx::shape,
     .work = dx::work,
     .flops = dx::flops,
     .cpu = by_product<dx::run<float>, dx::run<double>, dx::run_half>,
     .phases = phase::kBackward,
     .program_only = true,
     .derivative_epilogue = {.attribute = 0, .result = dx::kDx, .other = dx::kSource}},
    {.name = "linear_dw",
     .operands = dw::kOperands,
     .attributes = dw::kProductAttributes,
     .check = dw::check,
     .shape = dw::shape,
     .work = dw::work,
     .flops = dw::flops,
     .cpu = by_product<dw::run<float>, dw::run<double>, dw::run_half>,
     .phases = phase::kBackward | phase::kUpdate,
     .program_only = true},
};
extern const size_t linear_op_count = std::size(linear_ops);

}  // namespace gradring
