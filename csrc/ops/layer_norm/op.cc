// The registration of layer_norm and layer_norm_vjp.
#include "ops/op.h"

#include "ops/layer_norm/layer_norm.h"

namespace gradring {

namespace {

constexpr Attribute kAttributes[] = {
    {.name = "eps", .type = AttributeType::kReal, .otherwise = real_value(1e-5), .least = 0},
};

namespace forward {

enum { kX, kWeight, kBias, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "weight", .same_dtype = kX, .optional = true},
    {.name = "bias", .same_dtype = kX, .optional = true},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  layer_norm<T>(lane, {call[kX].rows(), call[kX].columns(), call[kX].as<const T>(), call[kWeight].as<const T>(),
                       call[kBias].as<const T>(), call[kY].as<T>(), call.real(0)});
}

void check(const OpCall& call) {
  check_columns(call, kX, kWeight);
  check_columns(call, kX, kBias);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  work->lanes = layer_norm_lanes(call[kX].rows(), call[kX].columns(), lanes);
  work->operations = static_cast<double>(call[kX].elements()) * 15;
}

double flops(const OpCall& call) { return 8 * static_cast<double>(call[kX].elements()); }

}  // namespace forward

namespace vjp {

enum { kDy, kX, kWeight, kDx, kDweight, kDbias };
constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "x", .same_dtype = kDy, .like = kDy},
    {.name = "weight", .same_dtype = kDy, .optional = true},
    {.name = "dx", .access = Access::kWrite, .same_dtype = kDy, .like = kDy, .optional = true},
    {.name = "dweight", .access = Access::kWrite, .same_dtype = kDy, .optional = true, .apart = true},
    {.name = "dbias", .access = Access::kWrite, .same_dtype = kDy, .optional = true, .apart = true},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  layer_norm_vjp<T>(lane, {call[kDy].rows(), call[kDy].columns(), call[kDy].as<const T>(), call[kX].as<const T>(),
                           call[kWeight].as<const T>(), call[kDx].as<T>(), call[kDweight].as<T>(), call[kDbias].as<T>(),
                           call.real(0)});
}

void check(const OpCall& call) { check_columns(call, kX, kWeight); }

void shape(const OpCall& call, int, Shape* shape) { column_shape(call, kX, shape); }

void work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor& x = call[kX];
  work->lanes = layer_norm_lanes(x.rows(), 2 * x.columns(), lanes);
  work->scratch = layer_norm_vjp_scratch(x.rows(), x.columns(), size_of(x.dtype), true);
  work->operations = static_cast<double>(x.elements()) * 30;
}

double flops(const OpCall& call) { return 16 * static_cast<double>(call[kX].elements()); }

}  // namespace vjp

}  // namespace

extern const OpSchema layer_norm_ops[] = {
    {.name = "layer_norm",
     .operands = forward::kOperands,
     .attributes = kAttributes,
     .check = forward::check,
     .work = forward::work,
     .flops = forward::flops,
     .cpu = by_real<forward::run<float>, forward::run<double>>},
    {.name = "layer_norm_vjp",
     .operands = vjp::kOperands,
     .attributes = kAttributes,
     .check = vjp::check,
     .shape = vjp::shape,
     .work = vjp::work,
     .flops = vjp::flops,
     .cpu = by_real<vjp::run<float>, vjp::run<double>>},
};
extern const size_t layer_norm_op_count = std::size(layer_norm_ops);

}  // namespace gradring
