// Instructions that come after the gradients: accumulation, the global norm, the optimizers.
#include <cmath>

#include "ops/adam/adam.h"
#include "ops/norm/norm.h"
#include "ops/sgd/sgd.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// Which fields of the step record an optimizer or clip reads: the weight of all micro-batches, by which sums of
// gradients are divided; the clipping factor.
enum Reads { kWeight = 1, kClip = 3 };

// What the gradients are multiplied by.
double gradient_scale(const Instruction& i, const StepRecord& step, bool clips) noexcept {
  return (clips ? step.clip : 1.0) / (i.integers[kWeight] != 0 ? step.total_weight : 1.0);
}

// accumulate: operands sum, gradient; integers elements.
template <class T>
void accumulate(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  T* sum = frame.get<T>(i, 0);
  const T* gradient = frame.get<const T>(i, 1);
  const Range range = split(lane, i.integers[0], kFlatGrain);
  for (int64_t e = range.begin; e < range.end; ++e) sum[e] += gradient[e];
}

void accumulate_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, true);
  list->add(1, i.integers[0], real, true, false);
}

// sgd: operands param, gradient, velocity (optional); integers elements, sums, nesterov, clips; reals momentum, weight decay.
template <class T>
void sgd(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  SgdArguments<T> p;
  p.n = i.integers[0];
  p.param = frame.get<T>(i, 0);
  p.grad = frame.get<const T>(i, 1);
  p.velocity = frame.get<T>(i, 2);
  p.lr = frame.step.learning_rate;
  p.momentum = i.reals[0];
  p.nesterov = i.integers[2] != 0;
  p.weight_decay = i.reals[1];
  p.grad_scale = gradient_scale(i, frame.step, i.integers[kClip] != 0);
  sgd_update(lane, p);
}

void sgd_accesses(const Instruction& i, Dtype real, AccessList* list) {
  const bool velocity = i.operands[2] >= 0;
  if (!velocity && i.reals[0] != 0) throw Error(Code::kInvalidArgument, "[program] sgd: momentum needs a velocity");
  list->add(0, i.integers[0], real, true, true);
  list->add(1, i.integers[0], real, true, false);
  if (velocity) list->add(2, i.integers[0], real, true, true);
}

// adam: operands param, gradient, m, v; integers elements, sums, decoupled, clips; reals beta1, beta2, eps, weight decay.
template <class T>
void adam(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  AdamArguments<T> p;
  p.n = i.integers[0];
  p.param = frame.get<T>(i, 0);
  p.grad = frame.get<const T>(i, 1);
  p.m = frame.get<T>(i, 2);
  p.v = frame.get<T>(i, 3);
  p.step = frame.step.number;
  p.lr = frame.step.learning_rate;
  p.beta1 = i.reals[0];
  p.beta2 = i.reals[1];
  p.eps = i.reals[2];
  p.weight_decay = i.reals[3];
  p.decoupled = i.integers[2] != 0;
  p.grad_scale = gradient_scale(i, frame.step, i.integers[kClip] != 0);
  adam_update(lane, p);
}

void adam_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, true);
  list->add(1, i.integers[0], real, true, false);
  list->add(2, i.integers[0], real, true, true);
  list->add(3, i.integers[0], real, true, true);
}

// sum_of_squares: operands gradient, the sum (one float64); integers elements.
template <class T>
SumOfSquaresArguments<T> squares_arguments(const Instruction& i, const Frame& frame) noexcept {
  SumOfSquaresArguments<T> p;
  p.n = i.integers[0];
  p.x = frame.get<const T>(i, 0);
  p.result = frame.get<double>(i, 1);
  return p;
}

template <class T>
void squares(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  sum_of_squares(lane, squares_arguments<T>(i, frame));
}

ScratchBytes squares_scratch(const Instruction& i, Dtype real, int lanes) {
  SumOfSquaresArguments<float> narrow;
  SumOfSquaresArguments<double> wide;
  narrow.n = wide.n = i.integers[0];
  return real == Dtype::kFloat32 ? sum_of_squares_scratch(narrow, lanes) : sum_of_squares_scratch(wide, lanes);
}

void squares_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  list->add(1, 1, Dtype::kFloat64, false, true);
}

// clip: operands the sum of squares; integers (unused), sums; reals the largest norm. Every lane reads for itself.
void clip(const Lane&, const Instruction& i, Frame& frame) noexcept {
  const double scale = gradient_scale(i, frame.step, false);
  const double sum = *frame.get<const double>(i, 0) * scale * scale;
  frame.step.gradient_norm = std::sqrt(sum);
  frame.step.clip = clip_factor(sum, i.reals[0]);
  if (frame.step.check_finite && !std::isfinite(sum)) frame.step.fault = Fault::kGradient;
}

void clip_accesses(const Instruction&, Dtype, AccessList* list) { list->add(0, 1, Dtype::kFloat64, true, false); }

bool solo(const Instruction& i) noexcept { return i.integers[0] <= 4096; }

const OpEntry kOps[] = {
    {"accumulate", Phase::kCompute, accumulate_accesses, accumulate<float>, accumulate<double>, nullptr},
    {"sum_of_squares", Phase::kUpdate, squares_accesses, squares<float>, squares<double>, squares_scratch},
    {"clip", Phase::kUpdate, clip_accesses, clip, clip, nullptr, nullptr, true},
    {"sgd", Phase::kUpdate, sgd_accesses, sgd<float>, sgd<double>, nullptr, solo},
    {"adam", Phase::kUpdate, adam_accesses, adam<float>, adam<double>, nullptr, solo},
};

}  // namespace

OpSpan update_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
