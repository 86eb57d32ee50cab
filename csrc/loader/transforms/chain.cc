#include "loader/transforms/chain.h"

#include <algorithm>
#include <cmath>

#include "ops/cast/any_cast.h"
#include "ops/dispatch.h"

namespace gradring {

GRADRING_DECLARE_KERNELS(TransformKernels, transform_kernels)

namespace {

// How many elements are converted at a time and then computed in place, so that they stay in the first-level cache.
constexpr int64_t kBlock = 1024;
// The operands of a few channels are repeated up to this many elements, so that one kernel call does enough work.
constexpr int64_t kRepeats = 256;
constexpr int64_t kRepeatUpTo = 8;
// Above this value kQuotient is not proved to be exact, so the division is kept.
constexpr int64_t kMostProofs = 4096;

// The index of the chain's kernel in TransformKernels, or -1 if no kernel has exactly these operations.
int find_signature(const ChainOp* ops, size_t length) noexcept {
  for (int i = 0; i < kChains; ++i) {
    const ChainSignature& candidate = kChainSignatures[i];
    if (static_cast<size_t>(candidate.length) == length && std::equal(ops, ops + length, candidate.ops)) return i;
  }
  return -1;
}

float apply_one(ChainOp op, float x, float y) noexcept {
  switch (op) {
    case ChainOp::kMul: return x * y;
    case ChainOp::kAdd: return x + y;
    case ChainOp::kSub: return x - y;
    default: return x / y;
  }
}

}  // namespace

ChainStage::ChainStage(const FieldSpec& spec, Dtype to, const std::vector<ChainStep>& steps, int64_t planes)
    : from_(spec.dtype), to_(to), elements_(spec.elements()), cast_(find_any_cast(to, spec.dtype)) {
  for (const ChainStep& step : steps) ops_.push_back(step.op);
  lay_out(spec, steps, planes);
  const int64_t last_axis = spec.shape.empty() ? 1 : spec.shape.back();
  if (to_ == Dtype::kFloat64) {
    expand(steps, last_axis, &float64_);
  } else {
    expand(steps, last_axis, &float32_);
    pick_kernel();
  }
}

void ChainStage::lay_out(const FieldSpec& spec, const std::vector<ChainStep>& steps, int64_t planes) {
  using Pattern = ChainStep::Pattern;
  bool last_axis = false, by_plane = false, by_element = false;
  for (const ChainStep& step : steps) {
    last_axis |= step.pattern == Pattern::kLastAxis;
    by_plane |= step.pattern == Pattern::kPlanes;
    by_element |= step.pattern == Pattern::kElements;
  }
  if (by_element || (by_plane && last_axis)) {
    period_ = distinct_ = elements_;
  } else if (last_axis) {
    distinct_ = spec.shape.back();
    period_ = std::min(elements_, distinct_ <= kRepeatUpTo ? distinct_ * kRepeats : distinct_ * 16);
  } else if (by_plane) {
    period_ = distinct_ = planes;
    plane_elements_ = elements_ / planes;
  }
}

template <class T>
void ChainStage::expand(const std::vector<ChainStep>& steps, int64_t last_axis, Operands<T>* operands) const {
  using Pattern = ChainStep::Pattern;
  for (const ChainStep& step : steps) {
    std::vector<T> values(static_cast<size_t>(period_));
    const auto count = static_cast<int64_t>(step.operands.size());
    for (int64_t i = 0; i < period_; ++i) {
      int64_t from = 0;
      if (step.pattern == Pattern::kElements) from = i;
      if (step.pattern == Pattern::kLastAxis) from = i % last_axis;
      if (step.pattern == Pattern::kPlanes) from = plane_elements_ != 0 ? i : i / (elements_ / count);
      values[static_cast<size_t>(i)] = static_cast<T>(step.operands[static_cast<size_t>(from)]);
    }
    operands->values.push_back(std::move(values));
  }
}

void ChainStage::pick_kernel() {
  if (to_ != Dtype::kFloat32 || (from_ != Dtype::kUint8 && from_ != Dtype::kFloat32)) return;
  std::vector<ChainOp> ops = ops_;
  if (from_ == Dtype::kUint8 && ops.size() > 1 && ops.back() == ChainOp::kDiv) {
    for (float divisor : float32_.values.back()) reciprocals_.push_back(1.0f / divisor);
    if (quotient_is_exact()) ops.back() = ChainOp::kQuotient;
  }
  const int signature = find_signature(ops.data(), ops.size());
  if (signature < 0) return;
  const TransformKernels& kernels = GRADRING_KERNELS(transform_kernels);
  const bool arrays = period_ > 1 && plane_elements_ == 0;
  fused_ = (from_ == Dtype::kUint8 ? kernels.chain_uint8 : kernels.chain_float32)[signature][arrays];
}

// Tries every value of a byte with every operand, so that it needs no theorem about rounding.
bool ChainStage::quotient_is_exact() const {
  if (distinct_ > kMostProofs) return false;
  const auto& values = float32_.values;
  for (size_t i = 0; i < static_cast<size_t>(distinct_); ++i) {
    for (int byte = 0; byte < 256; ++byte) {
      auto x = static_cast<float>(byte);
      for (size_t k = 0; k + 1 < ops_.size(); ++k) x = apply_one(ops_[k], x, values[k][i]);
      const float divisor = values.back()[i];
      const float quotient = x * reciprocals_[i];
      const float corrected = std::fma(std::fma(-quotient, divisor, x), reciprocals_[i], quotient);
      const float wanted = x / divisor;
      if (!(corrected == wanted && std::signbit(corrected) == std::signbit(wanted))) return false;
    }
  }
  return true;
}

Status ChainStage::run(const std::byte* from, std::byte* to, const RowKey&, std::byte*) const noexcept {
  run_part(from, to, 0, elements_);
  return {};
}

std::byte* ChainStage::run_part(const std::byte* from, std::byte* to, int64_t first, int64_t count) const noexcept {
  const auto in = static_cast<int64_t>(size_of(from_));
  const auto out = static_cast<int64_t>(size_of(to_));
  while (count > 0) {
    int64_t phase = 0;
    int64_t part = count;
    if (plane_elements_ != 0) {
      phase = first / plane_elements_;
      part = std::min(count, (phase + 1) * plane_elements_ - first);
    } else if (period_ > 1) {
      phase = first % period_;
      part = std::min(count, period_ - phase);
    }
    segment(from, to, part, phase);
    from += part * in;
    to += part * out;
    first += part;
    count -= part;
  }
  return to;
}

// Computes elements whose operands begin at `phase` of the period and end before its end.
void ChainStage::segment(const std::byte* from, std::byte* to, int64_t count, int64_t phase) const noexcept {
  if (fused_ != nullptr) {
    const float* operands[kLongestChain + 1] = {};
    const size_t ops = ops_.size();
    for (size_t k = 0; k < ops; ++k) operands[k] = float32_.values[k].data() + phase;
    if (!reciprocals_.empty()) operands[ops] = reciprocals_.data() + phase;
    fused_(reinterpret_cast<float*>(to), from, count, operands);
    return;
  }
  const auto in = static_cast<int64_t>(size_of(from_));
  const auto out = static_cast<int64_t>(size_of(to_));
  const bool arrays = period_ > 1 && plane_elements_ == 0;
  for (int64_t done = 0; done < count; done += kBlock) {
    const int64_t block = std::min(kBlock, count - done);
    std::byte* place = to + done * out;
    cast_(place, from + done * in, block);
    const int64_t at = arrays ? phase + done : phase;
    if (to_ == Dtype::kFloat32) apply(reinterpret_cast<float*>(place), block, at);
    if (to_ == Dtype::kFloat64) apply(reinterpret_cast<double*>(place), block, at);
  }
}

void ChainStage::apply(float* to, int64_t count, int64_t phase) const noexcept {
  const TransformKernels& kernels = GRADRING_KERNELS(transform_kernels);
  const bool arrays = period_ > 1 && plane_elements_ == 0;
  for (size_t k = 0; k < ops_.size(); ++k) {
    const float* operands[kLongestChain + 1] = {float32_.values[k].data() + phase};
    kernels.chain_float32[find_signature(&ops_[k], 1)][arrays](to, to, count, operands);
  }
}

void ChainStage::apply(double* to, int64_t count, int64_t phase) const noexcept {
  const TransformKernels& kernels = GRADRING_KERNELS(transform_kernels);
  const bool arrays = period_ > 1 && plane_elements_ == 0;
  for (size_t k = 0; k < ops_.size(); ++k) {
    const double* operands[kLongestChain + 1] = {float64_.values[k].data() + phase};
    kernels.single_float64[static_cast<int>(ops_[k])][arrays](to, to, count, operands);
  }
}

}  // namespace gradring
