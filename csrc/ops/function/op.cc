// The registration of function, function_vjp and function_loss, which call functions outside of the program, such as
// the Python functions of nn.Function. `answer` is one number that tells all lanes whether the function has succeeded.
#include "ops/op.h"

#include <cmath>

#include "ops/loss/loss.h"

namespace gradring {

namespace {

constexpr const char* kKinds[] = {Callback::kKind};
constexpr Attribute kAttributes[] = {
    {.name = "function", .type = AttributeType::kResource, .required = true, .choices = kKinds}};

// The order of the operands: the inputs, then the result, then `answer`, which lane 0 sets to 0 if the function fails.
template <int kInputs>
void run(const Lane& lane, const OpCall& call) noexcept {
  auto* answer = call[kInputs + 1].as<int64_t>();
  if (lane.index == 0) {
    void* memory[kInputs + 1];
    for (int k = 0; k <= kInputs; ++k) memory[k] = call[k].data;
    *answer = call.resource<Callback>(0).call(memory, kInputs + 1);
  }
  lane.barrier();
  if (*answer == 0) call.step->fault = Fault::kCallback;
}

// All inputs and the result must have the same number of rows, and `answer` must have one element.
template <int kInputs>
void check(const OpCall& call) {
  for (int k = 1; k <= kInputs; ++k) {
    if (!call[k] || call[k].shape[0] == call[0].shape[0]) continue;
    refuse_shapes(call, 0, k, "must have the same number of rows");
  }
  const Tensor& answer = call[kInputs + 1];
  if (!answer || answer.shape[0] == 1) return;
  refuse(call, "answer is " + shape_text(answer) + ": must be (1,)");
}

void work(const OpCall&, int lanes, OpWork* work) { work->lanes = lanes; }

namespace forward {

constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes | only(Dtype::kInt64), .least_rank = 1},
    {.name = "y", .access = Access::kWrite, .dtypes = kRealDtypes, .least_rank = 1, .apart = true},
    {.name = "answer", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
};

}  // namespace forward

namespace vjp {

constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "x", .same_dtype = 0, .least_rank = 1},
    {.name = "y", .same_dtype = 0, .like = 0},
    {.name = "dx", .access = Access::kWrite, .same_dtype = 0, .like = 1, .apart = true},
    {.name = "answer", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
};

}  // namespace vjp

// A loss: the function reads predictions, targets and the gradient by each sample's loss, and writes the samples'
// losses and the gradient with respect to the predictions. The op applies the weights and takes the mean.
namespace loss {

enum { kPrediction, kTarget, kSampleWeight, kDlosses, kLosses, kGradient, kTotals, kAnswer };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "target", .dtypes = kRealDtypes | only(Dtype::kInt64), .least_rank = 1},
    {.name = "sample_weight", .same_dtype = kPrediction, .optional = true, .least_rank = 1, .most_rank = 1},
    {.name = "dlosses",
     .access = Access::kWrite,
     .same_dtype = kPrediction,
     .least_rank = 1,
     .most_rank = 1,
     .apart = true},
    {.name = "losses",
     .access = Access::kWrite,
     .same_dtype = kPrediction,
     .least_rank = 1,
     .most_rank = 1,
     .apart = true},
    {.name = "dx",
     .access = Access::kWrite,
     .same_dtype = kPrediction,
     .like = kPrediction,
     .optional = true,
     .apart = true},
    {.name = "totals", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
    {.name = "answer", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
};
constexpr const char* kReductions[] = {"sample", "mean", "sum"};
constexpr Attribute kLossAttributes[] = {
    {.name = "function", .type = AttributeType::kResource, .required = true, .choices = kKinds},
    {.name = "reduction", .type = AttributeType::kChoice, .choices = kReductions},
};

// Lane 0 does all of this alone, because the function takes far longer.
template <class T>
LossTotals run_alone(const OpCall& call, bool* good) noexcept {
  const int64_t rows = call[kPrediction].shape[0];
  const T* weights = call[kSampleWeight].as<const T>();
  T *dlosses = call[kDlosses].as<T>(), *losses = call[kLosses].as<T>();
  LossTotals totals;
  for (int64_t i = 0; i < rows; ++i) {
    const double weight = weights ? static_cast<double>(weights[i]) : 1.0;
    totals.weight += weight;
    if (!(weight >= 0 && std::isfinite(weight)) && totals.bad_weight < 0) totals.bad_weight = i;
  }
  const double total = call.integer(1) == 1 ? totals.weight : 1.0;
  for (int64_t i = 0; i < rows; ++i) {
    const double weight = weights ? static_cast<double>(weights[i]) : 1.0;
    dlosses[i] = total == 0 ? T(0) : static_cast<T>(weight / total);
  }
  void* memory[] = {call[kPrediction].data, call[kTarget].data, dlosses, losses, call[kGradient].data};
  *good = totals.bad_weight >= 0 || call.resource<Callback>(0).call(memory, call[kGradient] ? 5 : 4);
  for (int64_t i = 0; *good && i < rows; ++i) {
    const double weight = weights ? static_cast<double>(weights[i]) : 1.0;
    if (weight != 0) totals.loss += weight * static_cast<double>(losses[i]);
  }
  return totals;
}

void run(const Lane& lane, const OpCall& call) noexcept {
  auto* answer = call[kAnswer].as<int64_t>();
  if (lane.index == 0) {
    bool good = false;
    const bool wide = call[kPrediction].dtype == Dtype::kFloat64;
    *call[kTotals].as<LossTotals>() = wide ? run_alone<double>(call, &good) : run_alone<float>(call, &good);
    *answer = good;
  }
  lane.barrier();
  if (*answer == 0) call.step->fault = Fault::kCallback;
}

void check(const OpCall& call) {
  for (int k : {kTarget, kSampleWeight, kDlosses, kLosses}) {
    if (call[k] && call[k].shape[0] != call[kPrediction].shape[0]) {
      refuse_shapes(call, kPrediction, k, "must have the same number of rows");
    }
  }
  constexpr int64_t kWords = sizeof(LossTotals) / sizeof(int64_t);
  if (call[kTotals] && call[kTotals].shape[0] != kWords) {
    refuse(call, "totals is " + shape_text(call[kTotals]) + ": must be (" + std::to_string(kWords) + ",)");
  }
  if (call[kAnswer] && call[kAnswer].shape[0] != 1) refuse(call, "answer must be (1,)");
}

}  // namespace loss

}  // namespace

extern const OpSchema function_ops[] = {
    {.name = "function",
     .operands = forward::kOperands,
     .attributes = kAttributes,
     .check = check<1>,
     .work = work,
     .cpu = always<run<1>>,
     .phases = phase::kForward,
     .program_only = true,
     .effects = true},
    {.name = "function_vjp",
     .operands = vjp::kOperands,
     .attributes = kAttributes,
     .check = check<3>,
     .work = work,
     .cpu = always<run<3>>,
     .phases = phase::kBackward,
     .program_only = true,
     .effects = true},
    {.name = "function_loss",
     .operands = loss::kOperands,
     .attributes = loss::kLossAttributes,
     .check = loss::check,
     .work = work,
     .cpu = always<loss::run>,
     .phases = phase::kLoss,
     .program_only = true,
     .effects = true},
};
extern const size_t function_op_count = std::size(function_ops);

}  // namespace gradring
