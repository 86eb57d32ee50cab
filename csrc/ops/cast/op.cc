// The registration of cast: between any two dtypes.
#include "ops/op.h"

#include "ops/cast/any_cast.h"

namespace gradring {

namespace {

constexpr Attribute kAttributes[] = {{.name = "dtype", .type = AttributeType::kDtype, .required = true}};

enum { kX, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kAllDtypes},
    {.name = "y", .access = Access::kWrite, .dtypes = kAllDtypes, .dtype_attribute = 0, .like = kX, .apart = true},
};

void run(const Lane& lane, const OpCall& call) noexcept {
  const Tensor &x = call[kX], &y = call[kY];
  const Range part = split(lane, x.elements(), kFlatGrain);
  if (part.end <= part.begin) return;
  const auto offset = [&](const Tensor& tensor) { return part.begin * static_cast<int64_t>(size_of(tensor.dtype)); };
  find_any_cast(y.dtype, x.dtype)(y.as<std::byte>() + offset(y), x.as<const std::byte>() + offset(x),
                                  part.end - part.begin);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto n = static_cast<double>(call[kX].elements());
  work->lanes = lanes_worth(n * 0.3, lanes);
  work->operations = n * 16;
}

}  // namespace

extern const OpSchema cast_ops[] = {
    {.name = "cast",
     .operands = kOperands,
     .attributes = kAttributes,
     .work = work,
     .cpu = always<run>,
     .elementwise = true},
};
extern const size_t cast_op_count = std::size(cast_ops);

}  // namespace gradring
