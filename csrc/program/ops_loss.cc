// Instructions that end the forward pass: the losses with their gradients, and the check of the step.
#include <cmath>

#include "ops/cross_entropy/cross_entropy.h"
#include "ops/pointwise_loss/pointwise_loss.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// All: operands prediction, target, gradient (optional), its column sums (optional), totals; integers rows, columns,
// sums (the gradient is not divided by the number of rows).
enum Operand { kPrediction, kTarget, kGradient, kColumnSums, kTotals };
enum Integer { kRows, kColumns, kSums };

constexpr int64_t kTotalsWords = sizeof(LossTotals) / sizeof(int64_t);

template <class T>
T scale_of(const Instruction& i) noexcept {
  return i.integers[kSums] ? T(1) : T(1) / static_cast<T>(i.integers[kRows]);
}

template <class T>
CrossEntropyArguments<T> cross_entropy_arguments(const Instruction& i, const Frame& frame) noexcept {
  CrossEntropyArguments<T> p;
  p.rows = i.integers[kRows];
  p.classes = i.integers[kColumns];
  p.logits = frame.get<const T>(i, kPrediction);
  p.labels = {frame.get<const int64_t>(i, kTarget), true};
  p.dlogits = frame.get<T>(i, kGradient);
  p.scale = scale_of<T>(i);
  p.column_sums = frame.get<T>(i, kColumnSums);
  p.totals = frame.get<LossTotals>(i, kTotals);
  return p;
}

template <class T, PointwiseLoss Kind>
PointwiseLossArguments<T> pointwise_arguments(const Instruction& i, const Frame& frame) noexcept {
  PointwiseLossArguments<T> p;
  p.kind = Kind;
  p.rows = i.integers[kRows];
  p.columns = i.integers[kColumns];
  p.predictions = frame.get<const T>(i, kPrediction);
  p.targets = frame.get<const T>(i, kTarget);
  p.gradient = frame.get<T>(i, kGradient);
  p.scale = scale_of<T>(i);
  p.column_sums = frame.get<T>(i, kColumnSums);
  p.totals = frame.get<LossTotals>(i, kTotals);
  return p;
}

template <class T>
void run_cross_entropy(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  cross_entropy(lane, cross_entropy_arguments<T>(i, frame));
}

template <class T, PointwiseLoss Kind>
void run_pointwise(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  pointwise_loss(lane, pointwise_arguments<T, Kind>(i, frame));
}

// Both losses ask for the same: their blocks' totals and column sums.
ScratchBytes scratch(const Instruction& i, Dtype real, int) {
  const bool sums = i.operands[kColumnSums] >= 0;
  return real == Dtype::kFloat32 ? loss_scratch<float>(i.integers[kRows], i.integers[kColumns], sums)
                                 : loss_scratch<double>(i.integers[kRows], i.integers[kColumns], sums);
}

void list_accesses(const Instruction& i, Dtype real, Dtype target, int64_t targets, AccessList* list) {
  const int64_t rows = i.integers[kRows], n = i.integers[kColumns];
  if (rows < 1 || n < 1) throw Error(Code::kInvalidArgument, "[program] a loss needs rows and columns");
  list->add(kPrediction, rows * n, real, true, false);
  list->add(kTarget, targets, target, true, false);
  if (i.operands[kGradient] >= 0) list->add(kGradient, rows * n, real, false, true);
  if (i.operands[kColumnSums] >= 0) list->add(kColumnSums, n, real, false, true);
  list->add(kTotals, kTotalsWords, Dtype::kInt64, false, true);
}

void labels_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list_accesses(i, real, Dtype::kInt64, i.integers[kRows], list);
}

void targets_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list_accesses(i, real, real, i.integers[kRows] * i.integers[kColumns], list);
}

bool solo(const Instruction& i) noexcept { return i.integers[kRows] * i.integers[kColumns] <= kOneLaneElements; }

// check_step: operands totals; integers rows. Every lane reads for itself, so all come to the same decision.
void check_step(const Lane&, const Instruction& i, Frame& frame) noexcept {
  const auto* totals = frame.get<const LossTotals>(i, 0);
  StepRecord& step = frame.step;
  step.loss_sum = totals->loss;
  step.loss_weight = static_cast<double>(i.integers[0]);
  step.total_weight = step.pending_weight + step.loss_weight;
  step.correct = totals->correct;
  if (totals->bad_row >= 0) {
    step.fault = Fault::kLabel;
    step.fault_row = totals->bad_row;
  } else if (step.check_finite && !std::isfinite(totals->loss)) {
    step.fault = Fault::kNonFinite;
  }
}

void check_step_accesses(const Instruction&, Dtype, AccessList* list) {
  list->add(0, kTotalsWords, Dtype::kInt64, true, false);
}

constexpr auto kMse = PointwiseLoss::kMse;
constexpr auto kBinary = PointwiseLoss::kBinaryCrossEntropy;

const OpEntry kOps[] = {
    {"cross_entropy", Phase::kCompute, labels_accesses, run_cross_entropy<float>, run_cross_entropy<double>, scratch,
     solo},
    {"mse", Phase::kCompute, targets_accesses, run_pointwise<float, kMse>, run_pointwise<double, kMse>, scratch, solo},
    {"binary_cross_entropy", Phase::kCompute, targets_accesses, run_pointwise<float, kBinary>,
     run_pointwise<double, kBinary>, scratch, solo},
    {"check_step", Phase::kCompute, check_step_accesses, check_step, check_step, nullptr, nullptr, true},
};

}  // namespace

OpSpan loss_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
