// StepRecord: the few numbers that decide a step. Ops read and write its fields as they do arrays: an operand that is
// declared with a StepField is a scalar that lies here.
//
// On the CPU each lane has a record of its own. All lanes compute the same fields from the same memory, so they agree
// without a barrier and without sharing a cache line. A device keeps one record in its memory.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/dtype.h"

namespace gradring {

// kOverflow is no fault of the run: it only ends this step without an update, because a scaled gradient is not finite. The
// bookkeeping after the step halves the scale and clears it, so the host never sees it.
enum class Fault : uint8_t { kNone, kNonFinite, kLabel, kCallback, kGradient, kId, kWeight, kOverflow };

// Loss scaling, for gradients that pass through float16: the gradient of the loss is multiplied by a power of two, and the
// update divides by it. The scale begins and grows as PyTorch's GradScaler has it, and ends where apex ends it. At the least scale,
// an overflow is a fault, so that no run skips steps for ever.
inline constexpr double kLeastLossScale = 1, kMostLossScale = 16777216;
inline constexpr int64_t kStepsToGrow = 2000;  // so many updates without an overflow double the scale

// When an instruction runs, as bits. A micro-batch is the first of an update or a later one, and it may be the last. A
// step is on the bounded route until bound_gradient finds that a gradient might be infinite.
enum class When : uint8_t { kAlways = 1, kFirst = 2, kLater = 4, kLast = 8, kBounded = 16, kUnbounded = 32 };

// Whether two instructions never run in the same step.
constexpr bool exclusive(When a, When b) noexcept {
  return (a == When::kFirst && b == When::kLater) || (a == When::kLater && b == When::kFirst) ||
         (a == When::kBounded && b == When::kUnbounded) || (a == When::kUnbounded && b == When::kBounded);
}

constexpr uint8_t moment_of(bool first, bool last) noexcept {
  return static_cast<uint8_t>(static_cast<uint8_t>(When::kAlways) | static_cast<uint8_t>(When::kBounded) |
                              static_cast<uint8_t>(first ? When::kFirst : When::kLater) |
                              (last ? static_cast<uint8_t>(When::kLast) : 0));
}

struct StepRecord {
  // Given before the step begins.
  double learning_rate = 0;       // the first of `rates`
  const double* rates = nullptr;  // the rates of this update: parameter groups may have their own
  int64_t rate_count = 0;
  int64_t number = 1;                // the number of this update, from 1: Adam's t
  uint64_t seed = 0;                 // a key of the random numbers, with `draw` and the sample's number
  uint64_t draw = 0;                 // the number of this forward pass
  double pending_weight = 0;         // the total weight of the earlier micro-batches of this update
  double loss_scale = 1;             // what the gradient of the loss is multiplied by
  bool check_finite = true;          // a loss that is not finite is a fault
  bool need_weight = false;          // a batch whose samples' weights are all zero is a fault
  const int64_t* samples = nullptr;  // the sample number of each row; null: first_sample + row
  int64_t first_sample = 0;

  // The bits of When say which instructions run. bound_gradient may change the route.
  uint8_t moment = moment_of(true, true);

  // Written by check_step.
  double loss_sum = 0;      // over the batch's rows
  double loss_weight = 0;   // what the sum is divided by for the mean
  double total_weight = 0;  // the total weight of all micro-batches of this update
  int64_t correct = 0;      // rows whose prediction is right, as the loss defines it
  Fault fault = Fault::kNone;
  int64_t fault_row = -1;
  int64_t fault_place = -1;  // if the fault is kId, the id's column in the row
  int64_t fault_value = 0;   // if the fault is kId, the id

  // Written by clip.
  double clip = 1;  // the factor that brings the gradients' norm below its limit
  double gradient_norm = 0;

  // Returns one of this update's learning rates.
  double rate(int64_t which) const noexcept { return which < rate_count ? rates[which] : learning_rate; }

  // Whether a gradient, or a loss, that is not finite only shows that the scale is too large.
  constexpr bool may_skip() const noexcept { return loss_scale > kLeastLossScale; }

  // Whether the batch belongs into means: one whose loss is not finite, which its scale excuses, does not.
  constexpr bool counts() const noexcept { return !may_skip() || loss_sum - loss_sum == 0; }

  // What a step does when its gradients are found to be infinite or NaN.
  constexpr void take_infinity() noexcept {
    if (may_skip()) {
      fault = Fault::kOverflow;
    } else if (check_finite) {
      fault = Fault::kGradient;
    }
  }

  // Called if a gradient may be infinite: separate updates then run instead of those that are fused into products.
  void leave_bounded_route() noexcept {
    moment = static_cast<uint8_t>((moment & ~static_cast<unsigned>(When::kBounded)) |
                                  static_cast<unsigned>(When::kUnbounded));
  }
};

// The fields that graphs name.
enum class StepField : uint8_t {
  kNone,
  kLearningRate,
  kNumber,
  kDraw,
  kPendingWeight,
  kLossSum,
  kLossWeight,
  kTotalWeight,
  kCorrect,
  kFinite,
  kBounded,
  kClip,
  kGradientNorm,
  kLossScale,
};

struct StepFieldFacts {
  const char* name;
  Dtype dtype;
  bool given;  // it has its value before the first instruction runs
};

inline constexpr std::array<StepFieldFacts, 14> kStepFields = {{
    {"", kNoDtype, false},
    {"learning_rate", Dtype::kFloat64, true},
    {"number", Dtype::kInt64, true},
    {"draw", Dtype::kInt64, true},
    {"pending_weight", Dtype::kFloat64, true},
    {"loss_sum", Dtype::kFloat64, false},
    {"loss_weight", Dtype::kFloat64, false},
    {"total_weight", Dtype::kFloat64, false},
    {"correct", Dtype::kInt64, false},
    {"finite", Dtype::kBool, false},
    {"bounded", Dtype::kBool, true},
    {"clip", Dtype::kFloat64, false},
    {"gradient_norm", Dtype::kFloat64, false},
    {"loss_scale", Dtype::kFloat64, true},
}};

// The address of a field. `finite` (there is no fault) and `bounded` (a bit of the moment) have no storage of their
// own: ops write them by setting `fault` and calling leave_bounded_route.
inline void* address_of(StepRecord& record, StepField field) noexcept {
  switch (field) {
    case StepField::kLearningRate: return &record.learning_rate;
    case StepField::kNumber: return &record.number;
    case StepField::kDraw: return &record.draw;
    case StepField::kPendingWeight: return &record.pending_weight;
    case StepField::kLossSum: return &record.loss_sum;
    case StepField::kLossWeight: return &record.loss_weight;
    case StepField::kTotalWeight: return &record.total_weight;
    case StepField::kCorrect: return &record.correct;
    case StepField::kFinite: return &record.fault;
    case StepField::kBounded: return &record.moment;
    case StepField::kClip: return &record.clip;
    case StepField::kGradientNorm: return &record.gradient_norm;
    case StepField::kLossScale: return &record.loss_scale;
    case StepField::kNone: break;
  }
  return nullptr;
}

}  // namespace gradring
