// Instructions that come after the gradients: accumulation, the global norm, the optimizers.
#include <cmath>

#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// What the gradients are multiplied by. Sums of unscaled gradients (accumulate > 1) still lack their division.
double gradient_scale(const Instruction& i, const Frame& frame) noexcept {
  const bool sums = i.integers[1] != 0;
  return frame.clip / (sums ? frame.inputs->pending_weight + frame.loss_weight : 1.0);
}

constexpr int64_t kGrain = 64;

// accumulate: operands sum, gradient; integers elements.
template <class T>
void accumulate(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  T* sum = frame.get<T>(i, 0);
  const T* gradient = frame.get<const T>(i, 1);
  const Range range = split(lane, i.integers[0], kGrain);
  if (frame.inputs->accumulate) {
    for (int64_t e = range.begin; e < range.end; ++e) sum[e] += gradient[e];
  } else {
    for (int64_t e = range.begin; e < range.end; ++e) sum[e] = gradient[e];
  }
}

void accumulate_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, true);
  list->add(1, i.integers[0], real, true, false);
}

// sgd: operands param, gradient, momentum; integers elements, sums, nesterov; reals momentum, weight decay.
template <class T>
void sgd(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  if (!frame.inputs->apply) return;
  T* p = frame.get<T>(i, 0);
  const T* g = frame.get<const T>(i, 1);
  T* v = frame.get<T>(i, 2);
  const T rate = static_cast<T>(frame.inputs->learning_rate), scale = static_cast<T>(gradient_scale(i, frame));
  const T momentum = static_cast<T>(i.reals[0]), decay = static_cast<T>(i.reals[1]);
  const bool nesterov = i.integers[2] != 0;
  const Range range = split(lane, i.integers[0], kGrain);
  for (int64_t e = range.begin; e < range.end; ++e) {
    T step = g[e] * scale + decay * p[e];
    if (v != nullptr) {
      v[e] = momentum * v[e] + step;
      step = nesterov ? step + momentum * v[e] : v[e];
    }
    p[e] -= rate * step;
  }
}

void sgd_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, true);
  list->add(1, i.integers[0], real, true, false);
  if (i.operands[2] >= 0) list->add(2, i.integers[0], real, true, true);
}

// adam, adamw: operands param, gradient, m, v; integers elements, sums; reals beta1, beta2, eps, weight decay.
template <class T>
void adam(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  if (!frame.inputs->apply) return;
  T* p = frame.get<T>(i, 0);
  const T* g = frame.get<const T>(i, 1);
  T* m = frame.get<T>(i, 2);
  T* v = frame.get<T>(i, 3);
  const double t = static_cast<double>(frame.inputs->update), rate = frame.inputs->learning_rate;
  const T b1 = static_cast<T>(i.reals[0]), b2 = static_cast<T>(i.reals[1]), eps = static_cast<T>(i.reals[2]);
  const T keep = static_cast<T>(1 - rate * i.reals[3]), scale = static_cast<T>(gradient_scale(i, frame));
  const T step = static_cast<T>(rate / (1 - std::pow(i.reals[0], t)));
  const T root = static_cast<T>(1 / std::sqrt(1 - std::pow(i.reals[1], t)));
  const Range range = split(lane, i.integers[0], kGrain);
  for (int64_t e = range.begin; e < range.end; ++e) {
    const T gradient = g[e] * scale;
    m[e] = b1 * m[e] + (1 - b1) * gradient;
    v[e] = b2 * v[e] + (1 - b2) * gradient * gradient;
    p[e] = keep * p[e] - step * m[e] / (std::sqrt(v[e]) * root + eps);
  }
}

void adam_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, true);
  list->add(1, i.integers[0], real, true, false);
  list->add(2, i.integers[0], real, true, true);
  list->add(3, i.integers[0], real, true, true);
}

// clip: operands gradient, partial sums of squares; integers elements, sums; reals the limit.
// clip_norms: the same operands; sums squares in fixed blocks, so the bits do not depend on the lanes.
constexpr int64_t kNormBlock = 4096;

template <class T>
void squares(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  if (!frame.inputs->apply) return;
  const T* g = frame.get<const T>(i, 0);
  T* partial = frame.get<T>(i, 1);
  const int64_t elements = i.integers[0];
  const Range range = split(lane, (elements + kNormBlock - 1) / kNormBlock);
  for (int64_t block = range.begin; block < range.end; ++block) {
    double sum = 0;
    const int64_t end = (block + 1) * kNormBlock < elements ? (block + 1) * kNormBlock : elements;
    for (int64_t e = block * kNormBlock; e < end; ++e) sum += static_cast<double>(g[e]) * static_cast<double>(g[e]);
    partial[block] = static_cast<T>(sum);
  }
}

void squares_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  list->add(1, (i.integers[0] + kNormBlock - 1) / kNormBlock, real, false, true);
}

template <class T>
void clip(const Lane&, const Instruction& i, Frame& frame) noexcept {
  if (!frame.inputs->apply) return;
  const T* partial = frame.get<const T>(i, 0);
  double sum = 0;
  for (int64_t block = 0; block < (i.integers[0] + kNormBlock - 1) / kNormBlock; ++block) {
    sum += static_cast<double>(partial[block]);
  }
  frame.clip = 1;
  frame.gradient_norm = std::sqrt(sum) * gradient_scale(i, frame);
  // As PyTorch's clip_grad_norm_ does it.
  if (frame.gradient_norm > i.reals[0]) frame.clip = i.reals[0] / (frame.gradient_norm + 1e-6);
}

void clip_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, (i.integers[0] + kNormBlock - 1) / kNormBlock, real, true, false);
}

const OpEntry kOps[] = {
    {"accumulate", Phase::kCompute, accumulate_accesses, accumulate<float>, accumulate<double>, nullptr},
    {"squares", Phase::kUpdate, squares_accesses, squares<float>, squares<double>, nullptr},
    {"clip", Phase::kUpdate, clip_accesses, clip<float>, clip<double>, nullptr},
    {"sgd", Phase::kUpdate, sgd_accesses, sgd<float>, sgd<double>, nullptr},
    {"adam", Phase::kUpdate, adam_accesses, adam<float>, adam<double>, nullptr},
};

}  // namespace

OpSpan update_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
