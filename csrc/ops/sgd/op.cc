// The registration of sgd_update, and of sgd, which does the same in a program.
#include "ops/gradient_scale.h"
#include "ops/sgd/sgd.h"
#include "ops/sgd/step.h"

namespace gradring {

namespace {

enum { kParam, kGrad, kVelocity };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "grad", .same_dtype = kParam, .like = kParam},
    {.name = "velocity", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam, .optional = true},
};
enum { kLr, kMomentum, kNesterov, kDecay, kScale };
constexpr Attribute kAttributes[] = {
    {.name = "lr", .type = AttributeType::kReal, .required = true, .least = 0},
    {.name = "momentum", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0},
    {.name = "nesterov", .type = AttributeType::kFlag},
    {.name = "weight_decay", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0},
    {.name = "grad_scale", .type = AttributeType::kReal, .otherwise = real_value(1)},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  SgdArguments<T> g;
  g.n = call[kParam].elements(), g.param = call[kParam].as<T>(), g.grad = call[kGrad].as<const T>();
  g.velocity = call[kVelocity].as<T>();
  g.lr = call.real(kLr), g.momentum = call.real(kMomentum), g.nesterov = call.flag(kNesterov);
  g.weight_decay = call.real(kDecay), g.grad_scale = call.real(kScale);
  sgd_update(lane, g);
}

void check(const OpCall& call) {
  const bool momentum = call.real(kMomentum) != 0;
  if (call.flag(kNesterov) && !momentum) refuse(call, "nesterov needs momentum above 0");
  if (momentum && !call[kVelocity]) {
    refuse(call,
           call.operand_name(kVelocity) + std::string(" is missing: momentum needs an array of zeros to begin with"));
  }
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t n = call[kParam].elements();
  work->lanes = sgd_lanes(n, lanes);
  work->operations = static_cast<double>(n) * 10;
}

double flops(const OpCall& call) {
  return static_cast<double>(call[kParam].elements()) * (call.real(kMomentum) != 0 ? 4 : 2);
}

namespace in_program {

enum { kParam, kGradient, kMomentumState, kClip, kWeight, kLr, kFinite, kBounded };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "gradient", .same_dtype = kParam, .like = kParam},
    {.name = "momentum", .access = Access::kUpdate, .same_dtype = kParam, .like = kParam, .optional = true},
    {.name = "clip", .optional = true, .step = StepField::kClip},
    {.name = "weight", .optional = true, .step = StepField::kTotalWeight},
    {.name = "lr", .step = StepField::kLearningRate},
    {.name = "finite", .step = StepField::kFinite},
    {.name = "bounded", .optional = true, .step = StepField::kBounded},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  SgdArguments<T> g;
  g.n = call[kParam].elements(), g.param = call[kParam].as<T>(), g.grad = call[kGradient].as<const T>();
  g.velocity = call[kMomentumState].as<T>();
  g.lr = learning_rate(call, kLr, kSgdRate), g.grad_scale = gradient_scale(call, kClip, kWeight);
  set_sgd_attributes(call, &g);
  sgd_update(lane, g);
}

void check(const OpCall& call) { check_velocity(call, kMomentumState); }

void work(const OpCall& call, int lanes, OpWork* work) {
  gradring::work(call, lanes, work);
  work->alone = call[kParam].elements() <= 4096;
}

double flops(const OpCall& call) { return sgd_flops(call, call[kParam].elements()); }

}  // namespace in_program

}  // namespace

extern const OpSchema sgd_ops[] = {
    {.name = "sgd_update",
     .operands = kOperands,
     .attributes = kAttributes,
     .check = check,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = 0},
    {.name = "sgd",
     .operands = in_program::kOperands,
     .attributes = kSgdStepAttributes,
     .check = in_program::check,
     .work = in_program::work,
     .flops = in_program::flops,
     .cpu = by_real<in_program::run<float>, in_program::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true},
};
extern const size_t sgd_op_count = std::size(sgd_ops);

}  // namespace gradring
