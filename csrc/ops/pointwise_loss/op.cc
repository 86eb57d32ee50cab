// The registration of mse and binary_cross_entropy: losses, their gradient and their totals, whichever are asked for.
#include "ops/loss/call.h"
#include "ops/pointwise_loss/pointwise_loss.h"

namespace gradring {

namespace {

constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "target", .same_dtype = kPrediction, .like = kPrediction},
    {.name = "dlosses", .same_dtype = kPrediction, .optional = true},
    {.name = "dx", .access = Access::kWrite, .same_dtype = kPrediction, .like = kPrediction, .optional = true},
    {.name = "losses", .access = Access::kWrite, .same_dtype = kPrediction, .optional = true},
    {.name = "column_sums",
     .access = Access::kWrite,
     .same_dtype = kPrediction,
     .optional = true,
     .column_sums_of = kGradient},
    {.name = "totals", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .optional = true},
};
constexpr Attribute kAttributes[] = {
    {.name = "scale", .type = AttributeType::kReal, .otherwise = real_value(1)},
    {.name = "reduction", .type = AttributeType::kChoice, .choices = kReductionNames},
};

int64_t samples(const Tensor& predictions) noexcept { return predictions.shape[0]; }
int64_t columns_of(const Tensor& predictions) noexcept {
  int64_t columns = 1;
  for (int axis = 1; axis < predictions.rank; ++axis) columns *= predictions.shape[axis];
  return columns;
}

template <class T>
PointwiseLossArguments<T> arguments(PointwiseLoss kind, const OpCall& call) noexcept {
  const Tensor& predictions = call[kPrediction];
  PointwiseLossArguments<T> g;
  g.kind = kind, g.rows = samples(predictions), g.columns = columns_of(predictions);
  g.predictions = predictions.as<const T>(), g.targets = call[kTarget].as<const T>();
  g.losses = call[kLosses].as<T>(), g.gradient = call[kGradient].as<T>(), g.dlosses = call[kDlosses].as<const T>();
  g.scale = static_cast<T>(loss_scale(call, g.rows, g.columns));
  g.column_sums = call[kColumnSums].as<T>(), g.totals = call[kTotals].as<LossTotals>();
  return g;
}

template <class T, PointwiseLoss kKind>
void run(const Lane& lane, const OpCall& call) noexcept {
  pointwise_loss(lane, arguments<T>(kKind, call));
}

void check(const OpCall& call) { check_dlosses(call, 1, samples(call[kPrediction])); }

void shape(const OpCall& call, int operand, Shape* shape) {
  loss_shape(call, 1, operand, shape);
  if (operand == kColumnSums) shape->extent[0] = columns_of(call[kPrediction]);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto g = arguments<float>(PointwiseLoss::kMse, call);
  work->lanes = pointwise_loss_lanes(g, lanes);
  const bool wide = call[kPrediction].dtype == Dtype::kFloat64;
  work->scratch = wide ? loss_scratch<double>(g.rows, g.columns, g.column_sums != nullptr)
                       : loss_scratch<float>(g.rows, g.columns, g.column_sums != nullptr);
  work->operations = static_cast<double>(g.rows * g.columns) * 20;
  work->alone = g.rows * g.columns <= kOneLaneElements;
}

double flops(const OpCall& call) { return 4 * static_cast<double>(call[kPrediction].elements()); }
double number(const OpCall& call) {
  return loss_number(call, samples(call[kPrediction]), columns_of(call[kPrediction]));
}

void verify(const OpCall& call) {
  const Tensor& totals = call[kTotals];
  if (!totals || totals.as<const LossTotals>()->bad_row < 0) return;
  refuse(call, "a target of sample " + std::to_string(totals.as<const LossTotals>()->bad_row) +
                   " is no probability: targets must be from 0 to 1 (divide 0..255 by 255; (t + 1) / 2 makes 0 and 1 "
                   "of -1 and 1)");
}

template <PointwiseLoss kKind>
constexpr OpSchema schema(const char* name) {
  return {.name = name,
          .operands = kOperands,
          .attributes = kAttributes,
          .check = check,
          .shape = shape,
          .work = work,
          .flops = flops,
          .cpu = by_real<run<float, kKind>, run<double, kKind>>,
          .verify = verify,
          .number = number,
          .phases = phase::kLoss};
}

}  // namespace

extern const OpSchema pointwise_loss_ops[] = {
    schema<PointwiseLoss::kMse>("mse"),
    schema<PointwiseLoss::kBinaryCrossEntropy>("binary_cross_entropy"),
};
extern const size_t pointwise_loss_op_count = std::size(pointwise_loss_ops);

}  // namespace gradring
