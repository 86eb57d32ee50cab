// StepRecord: the few numbers that decide a step. Instructions read and write them as they do buffers.
//
// On the CPU each lane has a copy of its own. All lanes compute the same fields from the same memory, so they agree
// without a barrier and without sharing a cache line. A device keeps one record in its memory.
#pragma once

#include <cstdint>

namespace gradring {

enum class Fault : uint8_t { kNone, kNonFinite, kLabel, kCallback, kGradient };

// When an instruction runs, as bits. A micro-batch is the first of an update or a later one, and it may be the last. A
// step is on the bounded route until bound_gradient finds that a gradient might be infinite.
enum class When : uint8_t { kAlways = 1, kFirst = 2, kLater = 4, kLast = 8, kBounded = 16, kUnbounded = 32 };

// Whether two instructions never run in the same step.
constexpr bool exclusive(When a, When b) noexcept {
  return (a == When::kFirst && b == When::kLater) || (a == When::kLater && b == When::kFirst) ||
         (a == When::kBounded && b == When::kUnbounded) || (a == When::kUnbounded && b == When::kBounded);
}

constexpr uint8_t moment(bool first, bool last) noexcept {
  return static_cast<uint8_t>(static_cast<uint8_t>(When::kAlways) | static_cast<uint8_t>(When::kBounded) |
                              static_cast<uint8_t>(first ? When::kFirst : When::kLater) |
                              (last ? static_cast<uint8_t>(When::kLast) : 0));
}

struct StepRecord {
  // Given before the step begins.
  double learning_rate = 0;
  int64_t number = 1;         // of this update, from 1: Adam's t
  uint64_t seed = 0;          // keys the random numbers, together with the sample's number and
  uint64_t draw = 0;          // this number, a new one for each forward pass
  double pending_weight = 0;  // of the earlier micro-batches of this update
  bool check_finite = true;   // a loss that is not finite is a fault

  // Written by check_step.
  double loss_sum = 0;      // over the batch's rows
  double loss_weight = 0;   // what the sum is divided by for the mean
  double total_weight = 0;  // of all micro-batches of this update
  int64_t correct = 0;      // rows whose prediction is right, as the loss defines it
  Fault fault = Fault::kNone;
  int64_t fault_row = -1;

  // Written by clip.
  double clip = 1;  // the factor that brings the gradients' norm below its limit
  double gradient_norm = 0;
};

}  // namespace gradring
