// The registration of activation and activation_vjp.
#include "ops/op.h"

#include "ops/activation/names.h"

namespace gradring {

namespace {

constexpr const char* kForms[] = {"tanh", "none"};  // PyTorch's names of the forms of gelu: none is exact
constexpr Attribute kAttributes[] = {
    {.name = "activation", .type = AttributeType::kChoice, .choices = kActivationNames},
    {.name = "approximate", .type = AttributeType::kChoice, .choices = kForms},
};

Activation kind_of(const OpCall& call) noexcept {
  return call.integer(1) != 0 ? Activation::kGeluErf : static_cast<Activation>(call.integer(0));
}

void check(const OpCall& call) {
  if (call.integer(1) == 0 || static_cast<Activation>(call.integer(0)) == Activation::kGelu) return;
  refuse(call, "approximate is 'none', which gelu alone has");
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t n = call[0].elements();
  work->lanes = activation_lanes(kind_of(call), n, lanes);
  work->operations = static_cast<double>(n) * 10;
}

double flops(const OpCall& call) { return static_cast<double>(call[0].elements()); }

enum { kX, kY };
constexpr Operand kForward[] = {
    {.name = "x", .dtypes = kRealDtypes},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};
template <class T>
void forward(const Lane& lane, const OpCall& call) noexcept {
  activation_forward<T>(lane, {kind_of(call), call[kX].elements(), call[kX].as<const T>(), call[kY].as<T>()});
}

// source: the output, or the input where derivative_needs_input.
enum { kDy, kSource, kDx };
constexpr Operand kVjp[] = {
    {.name = "dy", .dtypes = kRealDtypes},
    {.name = "source", .same_dtype = kDy, .like = kDy},
    {.name = "dx", .access = Access::kWrite, .same_dtype = kDy, .like = kDy},
};
template <class T>
void vjp(const Lane& lane, const OpCall& call) noexcept {
  activation_vjp<T>(lane, {kind_of(call), call[kDy].elements(), call[kDy].as<const T>(), call[kSource].as<const T>(),
                           call[kDx].as<T>()});
}

}  // namespace

extern const OpSchema activation_ops[] = {
    {.name = "activation",
     .operands = kForward,
     .attributes = kAttributes,
     .check = check,
     .work = work,
     .flops = flops,
     .cpu = by_real<forward<float>, forward<double>>,
     .part = {.kind = PartKind::kActivation, .attribute = 0, .input = kX, .result = kY}},
    {.name = "activation_vjp",
     .operands = kVjp,
     .attributes = kAttributes,
     .check = check,
     .work = work,
     .flops = flops,
     .cpu = by_real<vjp<float>, vjp<double>>,
     .part = {.kind = PartKind::kDerivative, .attribute = 0, .input = kDy, .other = kSource, .result = kDx}},
};
extern const size_t activation_op_count = std::size(activation_ops);

}  // namespace gradring
