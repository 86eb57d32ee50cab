// Instructions that end the forward pass: the losses with their gradients, and the verdict on the step.
#include <cmath>

#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// All: operands prediction, target, gradient (optional), losses by row, hits by row (cross_entropy alone);
// integers rows, columns, sums (the gradient is not divided by the batch's weight).
enum Operand { kPrediction, kTarget, kGradient, kLosses, kHits };
enum Integer { kRows, kColumns, kSums };

template <class T>
void cross_entropy(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const T* x = frame.get<const T>(i, kPrediction);
  const int64_t* labels = frame.get<const int64_t>(i, kTarget);
  T* gradient = frame.get<T>(i, kGradient);
  T* losses = frame.get<T>(i, kLosses);
  int64_t* hits = frame.get<int64_t>(i, kHits);
  const int64_t rows = i.integers[kRows], n = i.integers[kColumns];
  const T scale = i.integers[kSums] ? T(1) : T(1) / static_cast<T>(rows);
  const Range range = split(lane, rows);
  for (int64_t r = range.begin; r < range.end; ++r) {
    const T* row = x + r * n;
    const int64_t label = labels[r];
    if (label < 0 || label >= n) {
      hits[r] = -1;
      losses[r] = 0;
      continue;
    }
    int64_t best = 0;
    for (int64_t c = 1; c < n; ++c) {
      if (row[c] > row[best]) best = c;
    }
    T sum = 0;
    for (int64_t c = 0; c < n; ++c) sum += std::exp(row[c] - row[best]);
    losses[r] = std::log(sum) + row[best] - row[label];
    hits[r] = best == label;
    if (gradient == nullptr) continue;
    for (int64_t c = 0; c < n; ++c) gradient[r * n + c] = scale * (std::exp(row[c] - row[best]) / sum - T(c == label));
  }
}

void cross_entropy_accesses(const Instruction& i, Dtype real, AccessList* list) {
  const int64_t rows = i.integers[kRows], n = i.integers[kColumns];
  if (rows < 1 || n < 1) throw Error(Code::kInvalidArgument, "[program] a loss needs rows and columns");
  list->add(kPrediction, rows * n, real, true, false);
  list->add(kTarget, rows, Dtype::kInt64, true, false);
  if (i.operands[kGradient] >= 0) list->add(kGradient, rows * n, real, false, true);
  list->add(kLosses, rows, real, false, true);
  list->add(kHits, rows, Dtype::kInt64, false, true);
}

template <class T, bool Binary>
void elementwise(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const T* x = frame.get<const T>(i, kPrediction);
  const T* target = frame.get<const T>(i, kTarget);
  T* gradient = frame.get<T>(i, kGradient);
  T* losses = frame.get<T>(i, kLosses);
  const int64_t rows = i.integers[kRows], n = i.integers[kColumns];
  const T scale = i.integers[kSums] ? T(1) : T(1) / static_cast<T>(rows * n);
  const Range range = split(lane, rows);
  for (int64_t r = range.begin; r < range.end; ++r) {
    T sum = 0;
    for (int64_t e = r * n; e < (r + 1) * n; ++e) {
      if constexpr (Binary) {
        const T z = std::exp(-std::abs(x[e]));
        sum += (x[e] > 0 ? x[e] : T(0)) - x[e] * target[e] + std::log1p(z);
        if (gradient) gradient[e] = scale * ((x[e] >= 0 ? 1 / (1 + z) : z / (1 + z)) - target[e]);
      } else {
        const T gap = x[e] - target[e];
        sum += gap * gap;
        if (gradient) gradient[e] = 2 * scale * gap;
      }
    }
    losses[r] = sum;
  }
}

void elementwise_accesses(const Instruction& i, Dtype real, AccessList* list) {
  const int64_t rows = i.integers[kRows], n = i.integers[kColumns];
  if (rows < 1 || n < 1) throw Error(Code::kInvalidArgument, "[program] a loss needs rows and columns");
  list->add(kPrediction, rows * n, real, true, false);
  list->add(kTarget, rows * n, real, true, false);
  if (i.operands[kGradient] >= 0) list->add(kGradient, rows * n, real, false, true);
  list->add(kLosses, rows, real, false, true);
}

// verdict: operands losses, hits (optional); integers rows, weight of a row. Every lane sums for itself: a few hundred
// additions cost less than a barrier, and all lanes come to the same decision.
template <class T>
void verdict(const Lane&, const Instruction& i, Frame& frame) noexcept {
  const T* losses = frame.get<const T>(i, 0);
  const int64_t* hits = frame.get<const int64_t>(i, 1);
  const int64_t rows = i.integers[0];
  if (hits != nullptr) {
    int64_t correct = 0;
    for (int64_t r = 0; r < rows; ++r) {
      if (hits[r] < 0) {
        frame.fault = Fault::kLabel;
        frame.fault_row = r;
        return;
      }
      correct += hits[r];
    }
    frame.correct = correct;
  }
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) sum += static_cast<double>(losses[r]);
  frame.loss_sum = sum;
  frame.loss_weight = static_cast<double>(rows * i.integers[1]);
  if (frame.inputs->check_finite && !std::isfinite(sum)) frame.fault = Fault::kNonFinite;
}

void verdict_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  if (i.operands[1] >= 0) list->add(1, i.integers[0], Dtype::kInt64, true, false);
}

const OpEntry kOps[] = {
    {"cross_entropy", Phase::kCompute, cross_entropy_accesses, cross_entropy<float>, cross_entropy<double>, nullptr},
    {"mse", Phase::kCompute, elementwise_accesses, elementwise<float, false>, elementwise<double, false>, nullptr},
    {"binary_cross_entropy", Phase::kCompute, elementwise_accesses, elementwise<float, true>, elementwise<double, true>,
     nullptr},
    {"verdict", Phase::kCompute, verdict_accesses, verdict<float>, verdict<double>, nullptr},
};

}  // namespace

OpSpan loss_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
