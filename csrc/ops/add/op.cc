// The registration of add: the sum of two arrays of the same shape, as a residual connection needs it.
#include "ops/op.h"

namespace gradring {

namespace {

enum { kA, kB, kY };
constexpr Operand kOperands[] = {
    {.name = "a", .dtypes = kRealDtypes},
    {.name = "b", .same_dtype = kA, .like = kA},
    {.name = "y", .access = Access::kWrite, .same_dtype = kA, .like = kA},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  const T *a = call[kA].as<const T>(), *b = call[kB].as<const T>();
  T* y = call[kY].as<T>();
  const Range range = split(lane, call[kA].elements(), kFlatGrain);
  for (int64_t e = range.begin; e < range.end; ++e) y[e] = a[e] + b[e];
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto n = static_cast<double>(call[kA].elements());
  work->lanes = lanes_worth(n * 0.15, lanes);
  work->operations = n * 10;
}

double flops(const OpCall& call) { return static_cast<double>(call[kA].elements()); }

}  // namespace

extern const OpSchema add_ops[] = {
    {.name = "add",
     .operands = kOperands,
     .attributes = {},
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = phase::kForward | phase::kBackward | phase::kUpdate,
     .program_only = true},
};
extern const size_t add_op_count = std::size(add_ops);

}  // namespace gradring
