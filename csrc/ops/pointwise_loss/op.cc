// The registration of the losses that compare element by element: each computes those of the losses, their gradient
// and their totals that the caller wants.
#include <limits>
#include <span>

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
    {.name = "sample_weight", .same_dtype = kPrediction, .optional = true},
    {.name = "class_weight", .same_dtype = kPrediction, .optional = true, .least_rank = 1, .most_rank = 1},
    {.name = "pos_weight", .same_dtype = kPrediction, .optional = true, .least_rank = 1, .most_rank = 1},
};
constexpr Attribute kAttributes[] = {
    {.name = "scale", .type = AttributeType::kReal, .otherwise = real_value(1)},
    {.name = "reduction", .type = AttributeType::kChoice, .choices = kReductionNames},
    {.name = "delta",
     .type = AttributeType::kReal,
     .otherwise = real_value(1),
     .least = std::numeric_limits<double>::min()},
};
enum { kDelta = kReduction + 1 };

// Only binary cross entropy has weights of classes and columns, and only huber has a delta.
constexpr std::span<const Operand> operands_of(PointwiseLoss kind) {
  return std::span(kOperands).first(kind == PointwiseLoss::kBinaryCrossEntropy ? kPosWeight + 1 : kSampleWeight + 1);
}
constexpr std::span<const Attribute> attributes_of(PointwiseLoss kind) {
  return std::span(kAttributes).first(kind == PointwiseLoss::kHuber ? kDelta + 1 : kDelta);
}

int64_t samples(const Tensor& predictions) noexcept { return predictions.shape[0]; }
int64_t columns_of(const Tensor& predictions) noexcept {
  int64_t columns = 1;
  for (int axis = 1; axis < predictions.rank; ++axis) columns *= predictions.shape[axis];
  return columns;
}

template <PointwiseLoss kKind>
bool is_weighted(const OpCall& call) noexcept {
  if (call[kSampleWeight]) return true;
  if constexpr (kKind == PointwiseLoss::kBinaryCrossEntropy) return static_cast<bool>(call[kClassWeight]);
  return false;
}

template <class T, PointwiseLoss kKind>
PointwiseLossArguments<T> arguments(const OpCall& call) noexcept {
  const Tensor& predictions = call[kPrediction];
  PointwiseLossArguments<T> g;
  g.kind = kKind, g.rows = samples(predictions), g.columns = columns_of(predictions);
  g.predictions = predictions.as<const T>(), g.targets = call[kTarget].as<const T>();
  g.losses = call[kLosses].as<T>(), g.gradient = call[kGradient].as<T>(), g.dlosses = call[kDlosses].as<const T>();
  g.weights = call[kSampleWeight].as<const T>();
  if constexpr (kKind == PointwiseLoss::kBinaryCrossEntropy) {
    g.class_weights = call[kClassWeight].as<const T>(), g.pos_weights = call[kPosWeight].as<const T>();
  }
  if constexpr (kKind == PointwiseLoss::kHuber) g.delta = static_cast<T>(call.real(kDelta));
  g.divide = divides_by_weight(call, is_weighted<kKind>(call));
  g.scale = static_cast<T>(loss_scale(call, g.rows, g.columns, is_weighted<kKind>(call)));
  g.column_sums = call[kColumnSums].as<T>(), g.totals = call[kTotals].as<LossTotals>();
  return g;
}

template <class T, PointwiseLoss kKind>
void run(const Lane& lane, const OpCall& call) noexcept {
  pointwise_loss(lane, arguments<T, kKind>(call));
}

template <PointwiseLoss kKind>
void check(const OpCall& call) {
  const int64_t rows = samples(call[kPrediction]), columns = columns_of(call[kPrediction]);
  check_dlosses(call, 1, rows);
  check_sample_weight(call, 1, rows);
  if constexpr (kKind == PointwiseLoss::kBinaryCrossEntropy) {
    const Tensor &classes = call[kClassWeight], &positive = call[kPosWeight];
    if (classes && (classes.shape[0] != 2 || columns != 1)) {
      refuse(call, call.operand_name(kClassWeight) + std::string(" is ") + shape_text(classes) + " for outputs " +
                       shape_text(call[kPrediction]) +
                       ": must be the weights of 0 and of 1, for one output per sample; pos_weight weighs several");
    }
    if (positive && positive.shape[0] != columns) {
      refuse(call, call.operand_name(kPosWeight) + std::string(" is ") + shape_text(positive) +
                       ": must have one number for each of the " + std::to_string(columns) +
                       " elements of a sample of " + shape_text(call[kPrediction]));
    }
  }
}

void shape(const OpCall& call, int operand, Shape* shape) {
  loss_shape(call, 1, operand, shape);
  if (operand == kColumnSums) shape->extent[0] = columns_of(call[kPrediction]);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto g = arguments<float, PointwiseLoss::kMse>(call);
  work->lanes = pointwise_loss_lanes(g, lanes);
  const bool wide = call[kPrediction].dtype == Dtype::kFloat64;
  work->scratch = wide ? loss_scratch<double>(g.rows, g.columns, g.column_sums != nullptr)
                       : loss_scratch<float>(g.rows, g.columns, g.column_sums != nullptr);
  work->operations = static_cast<double>(g.rows * g.columns) * 20;
  work->alone = g.rows * g.columns <= kOneLaneElements;
}

double flops(const OpCall& call) { return 4 * static_cast<double>(call[kPrediction].elements()); }

template <PointwiseLoss kKind>
double number(const OpCall& call) {
  return loss_number(call, samples(call[kPrediction]), columns_of(call[kPrediction]), is_weighted<kKind>(call));
}

template <PointwiseLoss kKind>
void verify(const OpCall& call) {
  verify_sample_weight(call, is_weighted<kKind>(call));
  const Tensor& totals = call[kTotals];
  if (!totals || totals.as<const LossTotals>()->bad_row < 0) return;
  refuse(call, "a target of sample " + std::to_string(totals.as<const LossTotals>()->bad_row) +
                   " is no probability: targets must be from 0 to 1 (divide 0..255 by 255; (t + 1) / 2 makes 0 and 1 "
                   "of -1 and 1)");
}

template <PointwiseLoss kKind>
constexpr OpSchema schema(const char* name) {
  return {.name = name,
          .operands = operands_of(kKind),
          .attributes = attributes_of(kKind),
          .check = check<kKind>,
          .shape = shape,
          .work = work,
          .flops = flops,
          .cpu = by_real<run<float, kKind>, run<double, kKind>>,
          .verify = verify<kKind>,
          .number = number<kKind>,
          .phases = phase::kLoss};
}

}  // namespace

extern const OpSchema pointwise_loss_ops[] = {
    schema<PointwiseLoss::kMse>("mse"),
    schema<PointwiseLoss::kBinaryCrossEntropy>("binary_cross_entropy"),
    schema<PointwiseLoss::kMae>("mae"),
    schema<PointwiseLoss::kHuber>("huber"),
};
extern const size_t pointwise_loss_op_count = std::size(pointwise_loss_ops);

}  // namespace gradring
