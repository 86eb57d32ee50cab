// The registration of adam_update, and of adam, which does the same in a program; `decoupled` makes them AdamW's.
#include "ops/adam/adam.h"
#include "ops/adam/step.h"
#include "ops/gradient_scale.h"

namespace gradring {

namespace {

enum { kParam, kGrad, kM, kV, kVmax };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "grad", .same_dtype = kParam, .like = kParam},
    {.name = "m", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam},
    {.name = "v", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam},
    {.name = "vmax", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam, .optional = true},
};
enum { kStep, kLr, kBeta1, kBeta2, kEps, kDecay, kDecoupled, kScale };
constexpr Attribute kAttributes[] = {
    {.name = "step", .type = AttributeType::kInt, .required = true, .least = 1},
    {.name = "lr", .type = AttributeType::kReal, .otherwise = real_value(1e-3), .least = 0},
    {.name = "beta1",
     .type = AttributeType::kReal,
     .otherwise = real_value(0.9),
     .least = 0,
     .most = 1,
     .below_most = true},
    {.name = "beta2",
     .type = AttributeType::kReal,
     .otherwise = real_value(0.999),
     .least = 0,
     .most = 1,
     .below_most = true},
    {.name = "eps", .type = AttributeType::kReal, .otherwise = real_value(1e-8), .least = 0},
    {.name = "weight_decay", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0},
    {.name = "decoupled", .type = AttributeType::kFlag},
    {.name = "grad_scale", .type = AttributeType::kReal, .otherwise = real_value(1)},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  AdamArguments<T> g;
  g.n = call[kParam].elements(), g.param = call[kParam].as<T>(), g.grad = call[kGrad].as<const T>();
  g.m = call[kM].as<T>(), g.v = call[kV].as<T>(), g.vmax = call[kVmax].as<T>();
  g.step = call.integer(kStep), g.lr = call.real(kLr), g.beta1 = call.real(kBeta1), g.beta2 = call.real(kBeta2);
  g.eps = call.real(kEps), g.weight_decay = call.real(kDecay), g.decoupled = call.flag(kDecoupled);
  g.grad_scale = call.real(kScale);
  adam_update(lane, g);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t n = call[kParam].elements();
  work->lanes = adam_lanes(n, lanes);
  work->operations = static_cast<double>(n) * 20;
}

double flops(const OpCall& call) { return adam_flops(call[kParam].elements()); }

namespace in_program {

enum { kParam, kGradient, kM, kV, kVmax, kClip, kWeight, kNumber, kLr, kFinite, kBounded };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "gradient", .same_dtype = kParam, .like = kParam},
    {.name = "m", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam},
    {.name = "v", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam},
    {.name = "vmax", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam, .optional = true},
    {.name = "clip", .optional = true, .step = StepField::kClip},
    {.name = "weight", .optional = true, .step = StepField::kTotalWeight},
    {.name = "number", .step = StepField::kNumber},
    {.name = "lr", .step = StepField::kLearningRate},
    {.name = "finite", .step = StepField::kFinite},
    {.name = "bounded", .optional = true, .step = StepField::kBounded},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  AdamArguments<T> g;
  g.n = call[kParam].elements(), g.param = call[kParam].as<T>(), g.grad = call[kGradient].as<const T>();
  g.m = call[kM].as<T>(), g.v = call[kV].as<T>(), g.vmax = call[kVmax].as<T>();
  g.step = call.value<int64_t>(kNumber), g.lr = learning_rate(call, kLr, kAdamRate);
  g.grad_scale = gradient_scale(call, kClip, kWeight);
  set_adam_attributes(call, &g);
  adam_update(lane, g);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  gradring::work(call, lanes, work);
  work->alone = call[kParam].elements() <= 4096;
}

}  // namespace in_program

}  // namespace

extern const OpSchema adam_ops[] = {
    {.name = "adam_update",
     .operands = kOperands,
     .attributes = kAttributes,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = 0},
    {.name = "adam",
     .operands = in_program::kOperands,
     .attributes = kAdamStepAttributes,
     .work = in_program::work,
     .flops = flops,
     .cpu = by_real<in_program::run<float>, in_program::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true},
};
extern const size_t adam_op_count = std::size(adam_ops);

}  // namespace gradring
