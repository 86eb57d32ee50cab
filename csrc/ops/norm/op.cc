// The registration of sum_of_squares and clip: the norm of all gradients, and the factor that limits it.
#include "ops/op.h"

#include <limits>

#include "ops/norm/norm.h"

namespace gradring {

namespace {

namespace squares {

enum { kGradient, kSum };
constexpr Operand kOperands[] = {
    {.name = "gradient", .dtypes = kRealDtypes},
    {.name = "sum", .access = Access::kWrite, .dtypes = only(Dtype::kFloat64), .apart = true},
};

template <class T>
SumOfSquaresArguments<T> arguments(const OpCall& call) noexcept {
  return {call[kGradient].elements(), call[kGradient].as<const T>(), call[kSum].as<double>()};
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  sum_of_squares(lane, arguments<T>(call));
}

void shape(const OpCall&, int, Shape* shape) {
  shape->rank = 1;
  shape->extent[0] = 1;
}

void work(const OpCall& call, int lanes, OpWork* work) {
  work->lanes = sum_of_squares_lanes(call[kGradient].elements(), lanes);
  work->operations = static_cast<double>(call[kGradient].elements()) * 8;
  work->scratch = call[kGradient].dtype == Dtype::kFloat32 ? sum_of_squares_scratch(arguments<float>(call), lanes)
                                                           : sum_of_squares_scratch(arguments<double>(call), lanes);
}

double flops(const OpCall& call) { return 2 * static_cast<double>(call[kGradient].elements()); }

}  // namespace squares

namespace clip {

enum { kSum, kWeight, kClip, kNorm, kScale };
constexpr Operand kOperands[] = {
    {.name = "sum", .dtypes = only(Dtype::kFloat64), .least_rank = 1, .most_rank = 1},
    {.name = "weight", .optional = true, .step = StepField::kTotalWeight},
    {.name = "clip", .access = Access::kWrite, .step = StepField::kClip},
    {.name = "norm", .access = Access::kWrite, .step = StepField::kGradientNorm},
    {.name = "scale", .optional = true, .step = StepField::kLossScale},  // what the gradients were multiplied by
};
constexpr Attribute kAttributes[] = {
    {.name = "limit",
     .type = AttributeType::kReal,
     .otherwise = real_value(std::numeric_limits<double>::max()),
     .least = 0},
};

void run(const Lane&, const OpCall& call) noexcept {
  const double weight = call[kWeight] ? call.value<double>(kWeight) : 1.0;
  const double loss_scale = call[kScale] ? call.value<double>(kScale) : 1.0;
  const double scale = weight == 0 ? 0.0 : 1.0 / weight / loss_scale;
  const double sum = *call[kSum].as<const double>() * scale * scale;
  *call[kNorm].as<double>() = std::sqrt(sum);
  *call[kClip].as<double>() = clip_factor(sum, call.real(0)) / loss_scale;
  if (!std::isfinite(sum)) call.step->take_infinity();
}

void check(const OpCall& call) {
  if (call[kSum].shape[0] == 1) return;
  refuse(call, call.operand_name(kSum) + std::string(" is ") + shape_text(call[kSum]) + ": must be (1,)");
}

void work(const OpCall&, int, OpWork* work) { work->operations = 100; }

}  // namespace clip

}  // namespace

extern const OpSchema norm_ops[] = {
    {.name = "sum_of_squares",
     .operands = squares::kOperands,
     .attributes = {},
     .shape = squares::shape,
     .work = squares::work,
     .flops = squares::flops,
     .cpu = by_real<squares::run<float>, squares::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true},
    {.name = "clip",
     .operands = clip::kOperands,
     .attributes = clip::kAttributes,
     .check = clip::check,
     .work = clip::work,
     .cpu = always<clip::run>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true,
     .every_lane = true},
};
extern const size_t norm_op_count = std::size(norm_ops);

}  // namespace gradring
