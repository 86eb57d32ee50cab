// The registration of lion_update, and of lion, which does the same in a program.
#include "ops/op.h"

#include "ops/gradient_scale.h"
#include "ops/learning_rate.h"
#include "ops/lion/lion.h"

namespace gradring {

namespace {

enum { kParam, kGrad, kM };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "grad", .same_dtype = kParam, .like = kParam},
    {.name = "m", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam},
};

enum { kBeta1, kBeta2, kDecay, kLr, kScale, kRate = kLr };
constexpr Attribute beta(const char* name, double otherwise) {
  return {.name = name,
          .type = AttributeType::kReal,
          .otherwise = real_value(otherwise),
          .least = 0,
          .most = 1,
          .below_most = true};
}
constexpr Attribute kDecayAttribute = {
    .name = "weight_decay", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0};
constexpr Attribute kAttributes[] = {
    beta("beta1", 0.9),
    beta("beta2", 0.99),
    kDecayAttribute,
    {.name = "lr", .type = AttributeType::kReal, .otherwise = real_value(1e-4), .least = 0},
    {.name = "grad_scale", .type = AttributeType::kReal, .otherwise = real_value(1)},
};

// The eager call and the program's call have the same first operands and attributes.
template <class T>
LionArguments<T> arguments_of(const OpCall& call) noexcept {
  LionArguments<T> g;
  g.n = call[kParam].elements(), g.param = call[kParam].as<T>(), g.grad = call[kGrad].as<const T>();
  g.m = call[kM].as<T>();
  g.beta1 = call.real(kBeta1), g.beta2 = call.real(kBeta2), g.weight_decay = call.real(kDecay);
  return g;
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  LionArguments<T> g = arguments_of<T>(call);
  g.lr = call.real(kLr), g.grad_scale = call.real(kScale);
  lion_update(lane, g);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t n = call[kParam].elements();
  work->lanes = lion_lanes(n, lanes);
  work->operations = static_cast<double>(n) * 10;
}

double flops(const OpCall& call) { return 9 * static_cast<double>(call[kParam].elements()); }

namespace in_program {

enum { kClip = kM + 1, kWeight, kLearningRate };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "gradient", .same_dtype = kParam, .like = kParam},
    {.name = "m", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam},
    {.name = "clip", .optional = true, .step = StepField::kClip},
    {.name = "weight", .optional = true, .step = StepField::kTotalWeight},
    {.name = "lr", .step = StepField::kLearningRate},
    {.name = "finite", .step = StepField::kFinite},
    {.name = "bounded", .optional = true, .step = StepField::kBounded},
};
constexpr Attribute kAttributes[] = {beta("beta1", 0.9), beta("beta2", 0.99), kDecayAttribute, kRateAttribute};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  LionArguments<T> g = arguments_of<T>(call);
  g.lr = learning_rate(call, kLearningRate, kRate), g.grad_scale = gradient_scale(call, kClip, kWeight);
  lion_update(lane, g);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  gradring::work(call, lanes, work);
  work->alone = call[kParam].elements() <= 4096;
}

}  // namespace in_program

}  // namespace

extern const OpSchema lion_ops[] = {
    {.name = "lion_update",
     .operands = kOperands,
     .attributes = kAttributes,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = 0},
    {.name = "lion",
     .operands = in_program::kOperands,
     .attributes = in_program::kAttributes,
     .work = in_program::work,
     .flops = flops,
     .cpu = by_real<in_program::run<float>, in_program::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true},
};
extern const size_t lion_op_count = std::size(lion_ops);

}  // namespace gradring
