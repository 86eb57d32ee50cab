// The registration of largest: the largest magnitude of each block of elements.
#include "ops/op.h"

#include "ops/largest/largest.h"

namespace gradring {

namespace {

enum { kX, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .apart = true},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  largest<T>(lane, {call[kX].elements(), call[kX].as<const T>(), call[kY].as<T>()});
}

void shape(const OpCall& call, int, Shape* shape) {
  shape->rank = 1;
  shape->extent[0] = largest_blocks(call[kX].elements());
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t n = call[kX].elements();
  work->lanes = lanes_worth(static_cast<double>(n) * 0.1, lanes);
  work->operations = static_cast<double>(n) * 8;
  work->alone = n <= 4 * kLargestBlock;
}

double flops(const OpCall& call) { return static_cast<double>(call[kX].elements()); }

}  // namespace

extern const OpSchema largest_ops[] = {
    {.name = "largest",
     .operands = kOperands,
     .attributes = {},
     .shape = shape,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = phase::kBackward | phase::kUpdate,
     .program_only = true},
};
extern const size_t largest_op_count = std::size(largest_ops);

}  // namespace gradring
