// The registration of cross_entropy: it computes those of the losses, their gradient and their totals that the caller
// wants.
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/loss/call.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "target", .dtypes = kClassNumberDtypes | kRealDtypes, .widened = only(Dtype::kUint8)},
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
    {.name = "sample_weight", .same_dtype = kPrediction, .optional = true},
    {.name = "class_weight", .same_dtype = kPrediction, .optional = true, .least_rank = 1, .most_rank = 1},
};
constexpr Attribute kAttributes[] = {
    {.name = "scale", .type = AttributeType::kReal, .otherwise = real_value(1)},
    {.name = "reduction", .type = AttributeType::kChoice, .choices = kReductionNames},
    {.name = "label_smoothing", .type = AttributeType::kReal, .least = 0, .most = 1, .below_most = true},
};
enum { kLabelSmoothing = kReduction + 1 };

bool is_soft(const OpCall& call) noexcept { return !(only(call[kTarget].dtype) & kClassNumberDtypes); }
bool is_weighted(const OpCall& call) noexcept { return call[kSampleWeight] || (call[kClassWeight] && !is_soft(call)); }

template <class T>
CrossEntropyArguments<T> arguments(const OpCall& call) noexcept {
  CrossEntropyArguments<T> g;
  g.rows = call[kPrediction].rows(), g.classes = call[kPrediction].columns();
  g.logits = call[kPrediction].as<const T>();
  if (is_soft(call)) {
    g.soft = call[kTarget].as<const T>();
  } else {
    g.labels = {call[kTarget].data, call[kTarget].dtype == Dtype::kInt64};
  }
  g.weights = call[kSampleWeight].as<const T>(), g.class_weights = call[kClassWeight].as<const T>();
  g.smoothing = static_cast<T>(call.real(kLabelSmoothing));
  g.divide = divides_by_weight(call, is_weighted(call));
  g.losses = call[kLosses].as<T>(), g.dlogits = call[kGradient].as<T>(), g.dlosses = call[kDlosses].as<const T>();
  g.scale = static_cast<T>(loss_scale(call, g.rows, 1, is_weighted(call)));
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
  const std::string of = call.operand_name(kTarget) + std::string(is_soft(call) ? ", probabilities," : "") +
                         " must have the shape of " + call.operand_name(kPrediction);
  if (is_soft(call) && (labels.dtype != logits.dtype || labels.rank == axes)) {
    throw Error(Code::kWrongType, "[" + std::string(call.name) + "] " + call.operand_name(kTarget) + " is of dtype " +
                                      dtype_name(labels.dtype) +
                                      ": must be int32, int64 or uint8, or probabilities of dtype " +
                                      dtype_name(logits.dtype) + " and shape " + shape_text(logits));
  }
  const int same = is_soft(call) ? logits.rank : axes;
  bool fits = labels.rank == same;
  for (int axis = 0; fits && axis < same; ++axis) fits = labels.shape[axis] == logits.shape[axis];
  if (!fits) refuse_shapes(call, kPrediction, kTarget, is_soft(call) ? of : of + " without its last axis");
  check_columns(call, kPrediction, kClassWeight);
  const int64_t rows = logits.rows();
  check_dlosses(call, axes, rows);
  check_sample_weight(call, axes, rows);
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
  verify_sample_weight(call, is_weighted(call));
  const Tensor &totals = call[kTotals], &labels = call[kTarget];
  if (!totals || totals.as<const LossTotals>()->bad_row < 0) return;
  const int64_t row = totals.as<const LossTotals>()->bad_row, classes = call[kPrediction].columns();
  if (is_soft(call)) {
    refuse(call, "the target of sample " + std::to_string(row) +
                     " is no distribution: probabilities are from 0 to 1, and those of a row add up to 1");
  }
  const int64_t label = Labels{labels.data, labels.dtype == Dtype::kInt64}[row];
  refuse(call, "label " + std::to_string(row) + " is " + std::to_string(label) + ": must be " +
                   (classes ? "between 0 and " + std::to_string(classes - 1) : "none, as there are no classes"));
}

double number(const OpCall& call) { return loss_number(call, call[kPrediction].rows(), 1, is_weighted(call)); }

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
