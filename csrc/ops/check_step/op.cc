// The registration of check_step, which ends the forward pass: it reads the totals of the loss, and decides whether the
// step may change anything.
#include "ops/op.h"

#include <cmath>

#include "ops/loss/loss.h"

namespace gradring {

namespace {

constexpr int64_t kTotalsWords = sizeof(LossTotals) / sizeof(int64_t);

enum { kTotals, kPending, kLossSum, kWeight, kCorrect, kFinite, kTotalWeight };
constexpr Operand kOperands[] = {
    {.name = "totals", .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
    {.name = "pending", .optional = true, .step = StepField::kPendingWeight},
    {.name = "loss_sum", .access = Access::kWrite, .step = StepField::kLossSum},
    {.name = "weight", .access = Access::kWrite, .step = StepField::kLossWeight},
    {.name = "correct", .access = Access::kWrite, .step = StepField::kCorrect},
    {.name = "finite", .access = Access::kWrite, .step = StepField::kFinite},
    {.name = "total_weight", .access = Access::kWrite, .optional = true, .step = StepField::kTotalWeight},
};
constexpr Attribute kAttributes[] = {
    {.name = "rows", .type = AttributeType::kInt, .required = true, .least = 1},
    {.name = "weighted", .type = AttributeType::kFlag},
    {.name = "columns", .type = AttributeType::kInt, .least = 0},
};
enum { kRows, kWeighted, kColumns };

// Every lane reads the totals itself, so all lanes come to the same decision.
void run(const Lane&, const OpCall& call) noexcept {
  const auto* totals = call[kTotals].as<const LossTotals>();
  StepRecord& step = *call.step;
  step.loss_sum = totals->loss;
  const bool weighted = call.flag(kWeighted);
  const int64_t columns = call.integer(kColumns);  // above 0: the loss is the sum over all elements, not a mean
  if (columns > 0) step.loss_sum *= static_cast<double>(columns);
  step.loss_weight = columns > 0 ? 1 : weighted ? totals->weight : static_cast<double>(call.integer(kRows));
  step.total_weight = step.pending_weight + step.loss_weight;
  step.correct = totals->correct;
  if (totals->bad_row >= 0) {
    step.fault = Fault::kLabel;
    step.fault_row = totals->bad_row;
  } else if (weighted && weights_fail(*totals, step.need_weight)) {
    step.fault = Fault::kWeight;
    step.fault_row = totals->bad_weight;
  } else if (step.check_finite && !step.may_skip() && !std::isfinite(totals->loss)) {
    step.fault = Fault::kNonFinite;
  }
}

void check(const OpCall& call) {
  if (call[kTotals].shape[0] == kTotalsWords) return;
  refuse(call, call.operand_name(kTotals) + std::string(" is ") + shape_text(call[kTotals]) + ": must be (" +
                   std::to_string(kTotalsWords) + ",)");
}

void work(const OpCall&, int, OpWork* work) { work->operations = 100; }

}  // namespace

extern const OpSchema check_step_ops[] = {
    {.name = "check_step",
     .operands = kOperands,
     .attributes = kAttributes,
     .check = check,
     .work = work,
     .cpu = always<run>,
     .phases = phase::kCheck,
     .program_only = true,
     .effects = true,
     .every_lane = true},
};
extern const size_t check_step_op_count = std::size(check_step_ops);

}  // namespace gradring
