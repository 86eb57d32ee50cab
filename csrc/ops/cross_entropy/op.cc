// The registration of cross_entropy: losses, their gradient and their totals, whichever are asked for.
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/loss/call.h"

namespace gradring {

namespace {

constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "target", .dtypes = kClassNumberDtypes, .widened = only(Dtype::kUint8)},
    {.name = "dlosses", .same_dtype = kPrediction, .optional = true},
    {.name = "dx",
     .access = Access::kWrite,
     .same_dtype = kPrediction,
     .like = kPrediction,
     .optional = true,
     .bound = 1},  // a difference of two probabilities
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

template <class T>
CrossEntropyArguments<T> arguments(const OpCall& call) noexcept {
  CrossEntropyArguments<T> g;
  g.rows = call[kPrediction].rows(), g.classes = call[kPrediction].columns();
  g.logits = call[kPrediction].as<const T>();
  g.labels = {call[kTarget].data, call[kTarget].dtype == Dtype::kInt64};
  g.losses = call[kLosses].as<T>(), g.dlogits = call[kGradient].as<T>(), g.dlosses = call[kDlosses].as<const T>();
  g.scale = static_cast<T>(loss_scale(call, g.rows, 1));
  g.column_sums = call[kColumnSums].as<T>(), g.totals = call[kTotals].as<LossTotals>();
  return g;
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  cross_entropy(lane, arguments<T>(call));
}

void check(const OpCall& call) {
  const Tensor &logits = call[kPrediction], &labels = call[kTarget];
  const int axes = logits.rank - 1;
  bool fits = labels.rank == axes;
  for (int axis = 0; fits && axis < axes; ++axis) fits = labels.shape[axis] == logits.shape[axis];
  if (!fits) {
    refuse_shapes(call, kPrediction, kTarget,
                  call.operand_name(kTarget) + std::string(" must have the shape of ") +
                      call.operand_name(kPrediction) + " without its last axis");
  }
  check_dlosses(call, axes, labels.elements());
}

void shape(const OpCall& call, int operand, Shape* shape) {
  loss_shape(call, call[kPrediction].rank - 1, operand, shape);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto g = arguments<float>(call);
  work->lanes = cross_entropy_lanes(g, lanes);
  const bool wide = call[kPrediction].dtype == Dtype::kFloat64;
  work->scratch = wide ? loss_scratch<double>(g.rows, g.classes, g.column_sums != nullptr)
                       : loss_scratch<float>(g.rows, g.classes, g.column_sums != nullptr);
  work->operations = static_cast<double>(g.rows * g.classes) * 20;
  work->alone = g.rows * g.classes <= kOneLaneElements;
}

double flops(const OpCall& call) { return 6 * static_cast<double>(call[kPrediction].elements()); }

void verify(const OpCall& call) {
  const Tensor &totals = call[kTotals], &labels = call[kTarget];
  if (!totals || totals.as<const LossTotals>()->bad_row < 0) return;
  const int64_t row = totals.as<const LossTotals>()->bad_row, classes = call[kPrediction].columns();
  const int64_t label = Labels{labels.data, labels.dtype == Dtype::kInt64}[row];
  refuse(call, "label " + std::to_string(row) + " is " + std::to_string(label) + ": must be " +
                   (classes ? "between 0 and " + std::to_string(classes - 1) : "none, as there are no classes"));
}

double number(const OpCall& call) { return loss_number(call, call[kPrediction].rows(), 1); }

}  // namespace

extern const OpSchema cross_entropy_ops[] = {
    {.name = "cross_entropy",
     .operands = kOperands,
     .attributes = kAttributes,
     .check = check,
     .shape = shape,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .verify = verify,
     .number = number,
     .phases = phase::kLoss,
     .limit = {.operand = kTarget, .below = kPrediction, .axis = -1}},
};
extern const size_t cross_entropy_op_count = std::size(cross_entropy_ops);

}  // namespace gradring
