// The registration of rmsprop_update, and of rmsprop, which does the same in a program.
#include "ops/op.h"

#include "ops/gradient_scale.h"
#include "ops/learning_rate.h"
#include "ops/rmsprop/rmsprop.h"

namespace gradring {

namespace {

enum { kParam, kGrad, kV, kMean, kVelocity };
constexpr Operand state(const char* name, bool optional) {
  return {.name = name, .access = Access::kUpdate, .same_dtype = kParam, .like = kParam, .optional = optional};
}
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "grad", .same_dtype = kParam, .like = kParam},
    state("v", false),
    state("mean", true),
    state("velocity", true),
};

enum { kAlpha, kEps, kMomentum, kCentered, kDecay, kLr, kScale, kRate = kLr };
constexpr Attribute kAlphaAttribute = {.name = "alpha",
                                       .type = AttributeType::kReal,
                                       .otherwise = real_value(0.99),
                                       .least = 0,
                                       .most = 1,
                                       .below_most = true};
constexpr Attribute kEpsAttribute = {
    .name = "eps", .type = AttributeType::kReal, .otherwise = real_value(1e-8), .least = 0};
constexpr Attribute kMomentumAttribute = {
    .name = "momentum", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0};
constexpr Attribute kCenteredAttribute = {.name = "centered", .type = AttributeType::kFlag};
constexpr Attribute kDecayAttribute = {
    .name = "weight_decay", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0};
constexpr Attribute kAttributes[] = {
    kAlphaAttribute,
    kEpsAttribute,
    kMomentumAttribute,
    kCenteredAttribute,
    kDecayAttribute,
    {.name = "lr", .type = AttributeType::kReal, .otherwise = real_value(1e-2), .least = 0},
    {.name = "grad_scale", .type = AttributeType::kReal, .otherwise = real_value(1)},
};

// The eager call and the program's call have the same first operands and attributes.
template <class T>
RmspropArguments<T> arguments_of(const OpCall& call) noexcept {
  RmspropArguments<T> g;
  g.n = call[kParam].elements(), g.param = call[kParam].as<T>(), g.grad = call[kGrad].as<const T>();
  g.v = call[kV].as<T>();
  if (call.flag(kCentered)) g.mean = call[kMean].as<T>();
  if (call.real(kMomentum) != 0) g.velocity = call[kVelocity].as<T>();
  g.alpha = call.real(kAlpha), g.eps = call.real(kEps), g.momentum = call.real(kMomentum);
  g.weight_decay = call.real(kDecay);
  return g;
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  RmspropArguments<T> g = arguments_of<T>(call);
  g.lr = call.real(kLr), g.grad_scale = call.real(kScale);
  rmsprop_update(lane, g);
}

void check(const OpCall& call) {
  if (call.flag(kCentered) && !call[kMean]) {
    refuse(call, call.operand_name(kMean) + std::string(" is missing: centered needs an array of zeros to begin with"));
  }
  if (call.real(kMomentum) != 0 && !call[kVelocity]) {
    refuse(call,
           call.operand_name(kVelocity) + std::string(" is missing: momentum needs an array of zeros to begin with"));
  }
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t n = call[kParam].elements();
  work->lanes = rmsprop_lanes(n, lanes);
  work->operations = static_cast<double>(n) * 18;
}

double flops(const OpCall& call) {
  const int more = (call.flag(kCentered) ? 5 : 0) + (call.real(kMomentum) != 0 ? 2 : 0);
  return static_cast<double>(call[kParam].elements()) * (8 + more);
}

namespace in_program {

enum { kClip = kVelocity + 1, kWeight, kLearningRate };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "gradient", .same_dtype = kParam, .like = kParam},
    state("v", false),
    state("mean", true),
    state("velocity", true),
    {.name = "clip", .optional = true, .step = StepField::kClip},
    {.name = "weight", .optional = true, .step = StepField::kTotalWeight},
    {.name = "lr", .step = StepField::kLearningRate},
    {.name = "finite", .step = StepField::kFinite},
    {.name = "bounded", .optional = true, .step = StepField::kBounded},
};
constexpr Attribute kAttributes[] = {kAlphaAttribute,    kEpsAttribute,   kMomentumAttribute,
                                     kCenteredAttribute, kDecayAttribute, kRateAttribute};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  RmspropArguments<T> g = arguments_of<T>(call);
  g.lr = learning_rate(call, kLearningRate, kRate), g.grad_scale = gradient_scale(call, kClip, kWeight);
  rmsprop_update(lane, g);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  gradring::work(call, lanes, work);
  work->alone = call[kParam].elements() <= 4096;
}

}  // namespace in_program

}  // namespace

extern const OpSchema rmsprop_ops[] = {
    {.name = "rmsprop_update",
     .operands = kOperands,
     .attributes = kAttributes,
     .check = check,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = 0},
    {.name = "rmsprop",
     .operands = in_program::kOperands,
     .attributes = in_program::kAttributes,
     .check = check,
     .work = in_program::work,
     .flops = flops,
     .cpu = by_real<in_program::run<float>, in_program::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true},
};
extern const size_t rmsprop_op_count = std::size(rmsprop_ops);

}  // namespace gradring
