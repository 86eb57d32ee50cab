// The registration of rms_norm and rms_norm_vjp.
#include "ops/op.h"

#include "ops/rms_norm/rms_norm.h"

namespace gradring {

namespace {

constexpr Attribute kAttributes[] = {
    {.name = "eps", .type = AttributeType::kReal, .otherwise = real_value(1e-6), .least = 0},
};

// The weight has one number for each element of a row.
namespace forward {

enum { kX, kWeight, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "weight", .same_dtype = kX, .optional = true},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  rms_norm<T>(lane, {call[kX].rows(), call[kX].columns(), call[kX].as<const T>(), call[kWeight].as<const T>(),
                     call[kY].as<T>(), call.real(0)});
}

void check(const OpCall& call) { check_columns(call, kX, kWeight); }

void work(const OpCall& call, int lanes, OpWork* work) {
  work->lanes = rms_norm_lanes(call[kX].rows(), call[kX].columns(), lanes);
  work->operations = static_cast<double>(call[kX].elements()) * 10;
}

double flops(const OpCall& call) { return 4 * static_cast<double>(call[kX].elements()); }

}  // namespace forward

namespace vjp {

enum { kDy, kX, kWeight, kDx, kDweight };
constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "x", .same_dtype = kDy, .like = kDy},
    {.name = "weight", .same_dtype = kDy, .optional = true},
    {.name = "dx", .access = Access::kWrite, .same_dtype = kDy, .like = kDy, .optional = true},
    {.name = "dweight", .access = Access::kWrite, .same_dtype = kDy, .optional = true, .apart = true},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  rms_norm_vjp<T>(lane, {call[kDy].rows(), call[kDy].columns(), call[kDy].as<const T>(), call[kX].as<const T>(),
                         call[kWeight].as<const T>(), call[kDx].as<T>(), call[kDweight].as<T>(), call.real(0)});
}

void check(const OpCall& call) { check_columns(call, kX, kWeight); }

void shape(const OpCall& call, int, Shape* shape) { column_shape(call, kX, shape); }

void work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor& x = call[kX];
  work->lanes = rms_norm_lanes(x.rows(), 2 * x.columns(), lanes);
  work->scratch = rms_norm_vjp_scratch(x.rows(), x.columns(), size_of(x.dtype));
  work->operations = static_cast<double>(x.elements()) * 20;
}

double flops(const OpCall& call) { return 11 * static_cast<double>(call[kX].elements()); }

}  // namespace vjp

}  // namespace

extern const OpSchema rms_norm_ops[] = {
    {.name = "rms_norm",
     .operands = forward::kOperands,
     .attributes = kAttributes,
     .check = forward::check,
     .work = forward::work,
     .flops = forward::flops,
     .cpu = by_real<forward::run<float>, forward::run<double>>},
    {.name = "rms_norm_vjp",
     .operands = vjp::kOperands,
     .attributes = kAttributes,
     .check = vjp::check,
     .shape = vjp::shape,
     .work = vjp::work,
     .flops = vjp::flops,
     .cpu = by_real<vjp::run<float>, vjp::run<double>>},
};
extern const size_t rms_norm_op_count = std::size(rms_norm_ops);

}  // namespace gradring
