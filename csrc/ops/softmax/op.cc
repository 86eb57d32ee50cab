// The registration of softmax and softmax_vjp, over the last axis; `logarithm` turns them into log_softmax and its vjp.
#include "ops/op.h"

#include "ops/softmax/softmax.h"

namespace gradring {

namespace {

constexpr Attribute kAttributes[] = {{.name = "logarithm", .type = AttributeType::kFlag}};

enum { kX, kY };
constexpr Operand kForward[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};
template <class T>
void forward(const Lane& lane, const OpCall& call) noexcept {
  softmax<T>(lane, {call[kX].rows(), call[kX].columns(), call[kX].as<const T>(), call[kY].as<T>(), call.flag(0)});
}
void forward_work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor& x = call[kX];
  work->lanes = softmax_lanes(x.rows(), x.columns(), lanes);
  work->operations = static_cast<double>(x.elements()) * 20;
}
double forward_flops(const OpCall& call) { return 5 * static_cast<double>(call[kX].elements()); }

enum { kDy, kOutput, kDx };
constexpr Operand kVjp[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "y", .same_dtype = kDy, .like = kDy},
    {.name = "dx", .access = Access::kWrite, .same_dtype = kDy, .like = kDy},
};
template <class T>
void vjp(const Lane& lane, const OpCall& call) noexcept {
  softmax_vjp<T>(lane, {call[kDy].rows(), call[kDy].columns(), call[kDy].as<const T>(), call[kOutput].as<const T>(),
                        call[kDx].as<T>(), call.flag(0)});
}
void vjp_work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor& dy = call[kDy];
  work->lanes = softmax_lanes(dy.rows(), dy.columns(), lanes);
  work->operations = static_cast<double>(dy.elements()) * 10;
}
double vjp_flops(const OpCall& call) { return 4 * static_cast<double>(call[kDy].elements()); }

}  // namespace

extern const OpSchema softmax_ops[] = {
    {.name = "softmax",
     .operands = kForward,
     .attributes = kAttributes,
     .work = forward_work,
     .flops = forward_flops,
     .cpu = by_real<forward<float>, forward<double>>},
    {.name = "softmax_vjp",
     .operands = kVjp,
     .attributes = kAttributes,
     .work = vjp_work,
     .flops = vjp_flops,
     .cpu = by_real<vjp<float>, vjp<double>>},
};
extern const size_t softmax_op_count = std::size(softmax_ops);

}  // namespace gradring
