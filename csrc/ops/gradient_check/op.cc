// The registration of bound_gradient and check_gradients, which prove, before the first update, that no gradient of the step
// is infinite or NaN. They read what `largest` wrote.
//
// An element of x' dy is a sum over the rows, so its magnitude is at most rows * max|x| * max|dy|. If that is finite,
// updates may be fused into the products that make the gradients. If not, the step takes the unbounded route: the gradients go to
// memory, are checked, and are then applied, with the same bits.
#include "ops/op.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gradring {

namespace {

// The largest of the blocks' magnitudes; infinity if one is a NaN.
template <class T>
double most_of(const Tensor& largest) noexcept {
  const T* blocks = largest.as<const T>();
  double most = 0;
  for (int64_t b = 0, count = largest.elements(); b < count; ++b) {
    const auto value = static_cast<double>(blocks[b]);
    if (!(value <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::infinity();
    most = std::max(most, value);
  }
  return most;
}

void work(const OpCall&, int, OpWork* work) { work->operations = 100; }

namespace bound {

enum { kX, kDy, kBounded };
// The largest magnitudes of x and dy. If absent, x counts as 1 and dy as dy_bound.
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .optional = true},
    {.name = "dy", .dtypes = kRealDtypes, .optional = true},
    {.name = "bounded", .access = Access::kUpdate, .step = StepField::kBounded},
};
enum { kRows, kDyBound };
constexpr Attribute kAttributes[] = {
    {.name = "rows", .type = AttributeType::kInt, .required = true, .least = 0},
    {.name = "dy_bound", .type = AttributeType::kReal, .otherwise = real_value(1), .least = 0},
};

// The bound also covers the column sums of dy, which are a bias's gradient. Every lane reads the operands itself, so all lanes take
// the same route.
template <class T>
void run(const Lane&, const OpCall& call) noexcept {
  if (!call.step->check_finite) return;
  const double x = call[kX] ? std::max(most_of<T>(call[kX]), 1.0) : 1.0;
  const double dy = call[kDy] ? most_of<T>(call[kDy]) : call.real(kDyBound);
  // Compare with a quarter of the largest number, because the rounded sum may be larger than the exact one.
  const bool bounded =
      static_cast<double>(call.integer(kRows)) * x * dy < static_cast<double>(std::numeric_limits<T>::max()) / 4;
  if (!bounded) call.step->leave_bounded_route();
}

OpRun cpu(const OpCall& call) noexcept {
  const Dtype dtype = call[kX] ? call[kX].dtype : call[kDy] ? call[kDy].dtype : Dtype::kFloat32;
  return dtype == Dtype::kFloat32 ? run<float> : run<double>;
}

void check(const OpCall& call) {
  if (!call[kX] || !call[kDy] || call[kX].dtype == call[kDy].dtype) return;
  refuse(call, std::string("x is ") + dtype_name(call[kX].dtype) + ", dy is " + dtype_name(call[kDy].dtype) +
                   ": must have the same dtype");
}

}  // namespace bound

namespace whole {

enum { kLargest };
constexpr Operand kOperands[] = {{.name = "largest", .dtypes = kRealDtypes}};

template <class T>
void run(const Lane&, const OpCall& call) noexcept {
  if (!call.step->check_finite) return;
  if (std::isinf(most_of<T>(call[kLargest]))) call.step->fault = Fault::kGradient;
}

}  // namespace whole

}  // namespace

extern const OpSchema gradient_check_ops[] = {
    {.name = "bound_gradient",
     .operands = bound::kOperands,
     .attributes = bound::kAttributes,
     .check = bound::check,
     .work = work,
     .cpu = bound::cpu,
     .phases = phase::kBackward,
     .program_only = true,
     .effects = true,
     .every_lane = true},
    {.name = "check_gradients",
     .operands = whole::kOperands,
     .attributes = {},
     .work = work,
     .cpu = by_real<whole::run<float>, whole::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true,
     .every_lane = true},
};
extern const size_t gradient_check_op_count = std::size(gradient_check_ops);

}  // namespace gradring
