// The registration of accumulate: it adds the gradient of a micro-batch to the sum of the earlier ones. The operand `finite`
// says that it must come after the check of the step.
#include "ops/op.h"

namespace gradring {

namespace {

enum { kSum, kGradient, kFinite };
constexpr Operand kOperands[] = {
    {.name = "sum", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "gradient", .same_dtype = kSum, .like = kSum},
    {.name = "finite", .optional = true, .step = StepField::kFinite},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  T* sum = call[kSum].as<T>();
  const T* gradient = call[kGradient].as<const T>();
  const Range range = split(lane, call[kSum].elements(), kFlatGrain);
  for (int64_t e = range.begin; e < range.end; ++e) sum[e] += gradient[e];
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto n = static_cast<double>(call[kSum].elements());
  work->lanes = lanes_worth(n * 0.15, lanes);
  work->operations = n * 10;
}

double flops(const OpCall& call) { return static_cast<double>(call[kSum].elements()); }

}  // namespace

extern const OpSchema accumulate_ops[] = {
    {.name = "accumulate",
     .operands = kOperands,
     .attributes = {},
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = phase::kBackward,
     .program_only = true,
     .elementwise = true},
};
extern const size_t accumulate_op_count = std::size(accumulate_ops);

}  // namespace gradring
