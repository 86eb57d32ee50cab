// The registration of column_sums: the sums over all axes before the last, which are the gradient by a bias.
#include "ops/op.h"

#include "ops/column_sums/column_sums.h"

namespace gradring {

namespace {

enum { kX, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .apart = true},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  const Tensor& x = call[kX];
  column_sums<T>(lane, {x.rows(), x.columns(), x.as<const T>(), x.columns(), call[kY].as<T>()});
}

void shape(const OpCall& call, int, Shape* shape) { column_shape(call, kX, shape); }

void work(const OpCall& call, int lanes, OpWork* work) {
  work->lanes = column_sums_lanes(call[kX].rows(), call[kX].columns(), lanes);
  work->operations = static_cast<double>(call[kX].elements()) * 8;
}

double flops(const OpCall& call) { return static_cast<double>(call[kX].elements()); }

}  // namespace

extern const OpSchema column_sums_ops[] = {
    {.name = "column_sums",
     .operands = kOperands,
     .attributes = {},
     .shape = shape,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>,
     .phases = phase::kBackward,
     .program_only = true,
     .part = {.kind = PartKind::kColumnSums, .input = kX, .result = kY}},
};
extern const size_t column_sums_op_count = std::size(column_sums_ops);

}  // namespace gradring
