// The registration of copy.
#include "ops/op.h"

#include <cstring>

namespace gradring {

namespace {

enum { kX, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};

void run(const Lane& lane, const OpCall& call) noexcept {
  const Range range = split(lane, call[kX].elements(), kFlatGrain);
  if (range.end <= range.begin) return;
  const auto size = static_cast<int64_t>(size_of(call[kX].dtype));
  std::memcpy(call[kY].as<std::byte>() + range.begin * size, call[kX].as<const std::byte>() + range.begin * size,
              static_cast<size_t>((range.end - range.begin) * size));
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const auto n = static_cast<double>(call[kX].elements());
  work->lanes = lanes_worth(n * 0.1, lanes);
  work->operations = n * 8;
}

}  // namespace

extern const OpSchema copy_ops[] = {
    {.name = "copy",
     .operands = kOperands,
     .attributes = {},
     .work = work,
     .cpu = always<run>,
     .phases = phase::kForward | phase::kBackward | phase::kUpdate,
     .program_only = true,
     .elementwise = true,
     .part = {.kind = PartKind::kCopy, .input = kX, .result = kY}},
};
extern const size_t copy_op_count = std::size(copy_ops);

}  // namespace gradring
