// Instructions that prove, before the first update, that no gradient of the step is infinite or NaN.
//
// An element of x' dy is a sum over the rows, so its magnitude is at most rows * max|x| * max|dy|. If that is finite,
// updates may be fused into the products that make the gradients. If not, the step takes the other route: gradients go to
// memory, are looked at, and then applied, with the same bits.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/largest/largest.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// largest: operands x, y (a number for each block); integers elements.
template <class T>
void run_largest(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  largest(lane, LargestArguments<T>{i.integers[0], frame.get<const T>(i, 0), frame.get<T>(i, 1)});
}

void largest_accesses(const Instruction& i, Dtype real, AccessList* list) {
  if (i.integers[0] < 0) throw Error(Code::kInvalidArgument, "[program] largest: a negative size");
  list->add(0, i.integers[0], real, true, false);
  list->add(1, largest_blocks(i.integers[0]), real, false, true);
}

bool solo(const Instruction& i) noexcept { return i.integers[0] <= 4 * kLargestBlock; }

// The largest of the blocks; infinity if one is a NaN. An operand that is absent counts as `absent`.
template <class T>
double most_of(const Instruction& i, const Frame& frame, int operand, double absent) noexcept {
  const T* blocks = frame.get<const T>(i, operand);
  if (blocks == nullptr) return absent;
  double most = 0;
  for (int64_t b = 0; b < i.integers[static_cast<size_t>(operand)]; ++b) {
    const auto value = static_cast<double>(blocks[b]);
    if (!(value <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::infinity();
    most = std::max(most, value);
  }
  return most;
}

// bound_gradient: operands the largest of x (optional) and of dy (optional); integers how many numbers each has; reals
// the rows, and the bound of dy where it is absent. The bound covers the sums of dy alone too, a bias's gradient. Every
// lane reads for itself, so all take the same route.
template <class T>
void bound_gradient(const Lane&, const Instruction& i, Frame& frame) noexcept {
  if (!frame.step.check_finite) return;
  const double x = std::max(most_of<T>(i, frame, 0, 1.0), 1.0), dy = most_of<T>(i, frame, 1, i.reals[1]);
  // A quarter leaves room for the rounding of the sum.
  const bool bounded = i.reals[0] * x * dy < static_cast<double>(std::numeric_limits<T>::max()) / 4;
  if (!bounded) frame.leave_bounded_route();
}

void bound_accesses(const Instruction& i, Dtype real, AccessList* list) {
  if (i.integers[0] < 0 || i.integers[1] < 0) {
    throw Error(Code::kInvalidArgument, "[program] bound_gradient: a negative size");
  }
  for (int k = 0; k < 2; ++k) {
    const auto at = static_cast<size_t>(k);
    if (i.operands[at] >= 0) list->add(k, i.integers[at], real, true, false);
  }
}

// check_gradients: operands the largest of all gradients; integers how many numbers. Every lane reads for itself.
template <class T>
void check_gradients(const Lane&, const Instruction& i, Frame& frame) noexcept {
  if (!frame.step.check_finite) return;
  if (std::isinf(most_of<T>(i, frame, 0, 0.0))) frame.step.fault = Fault::kGradient;
}

void check_accesses(const Instruction& i, Dtype real, AccessList* list) {
  if (i.integers[0] < 0) throw Error(Code::kInvalidArgument, "[program] check_gradients: a negative size");
  list->add(0, i.integers[0], real, true, false);
}

const OpEntry kOps[] = {
    {"largest", Phase::kCompute, largest_accesses, run_largest<float>, run_largest<double>, nullptr, solo},
    {"bound_gradient", Phase::kCompute, bound_accesses, bound_gradient<float>, bound_gradient<double>, nullptr, nullptr,
     true},
    {"check_gradients", Phase::kCompute, check_accesses, check_gradients<float>, check_gradients<double>, nullptr,
     nullptr, true},
};

}  // namespace

OpSpan check_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
