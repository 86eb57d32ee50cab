// The registration of scale_gradient, which multiplies the gradient of the loss by the loss's scale, so that what comes from it does
// not become zero in float16. If the loss is not finite, the result is NaN, so that the check of the gradients finds it.
#include "ops/op.h"

#include <cmath>

namespace gradring {

namespace {

enum { kX, kScale, kLoss, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes},
    {.name = "scale", .step = StepField::kLossScale},
    {.name = "loss", .step = StepField::kLossSum},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  const T* x = call[kX].as<const T>();
  T* y = call[kY].as<T>();
  const double loss = call.value<double>(kLoss);
  const T scale = static_cast<T>(std::isfinite(loss) ? call.value<double>(kScale) : std::nan(""));
  const Range range = split(lane, call[kX].elements(), kFlatGrain);
  for (int64_t e = range.begin; e < range.end; ++e) y[e] = scale * x[e];
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto n = static_cast<double>(call[kX].elements());
  work->lanes = lanes_worth(n * 0.1, lanes);
  work->operations = n * 8;
}

double flops(const OpCall& call) { return static_cast<double>(call[kX].elements()); }

}  // namespace

extern const OpSchema scale_gradient_ops[] = {
    {.name = "scale_gradient",
     .operands = kOperands,
     .attributes = {},
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = phase::kBackward,
     .program_only = true},
};
extern const size_t scale_gradient_op_count = std::size(scale_gradient_ops);

}  // namespace gradring
