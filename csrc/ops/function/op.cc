// The registration of function and function_vjp, which call out of the program, such as into Python for nn.Function. answer
// is one number that tells all lanes whether the function has succeeded.
#include "ops/op.h"

namespace gradring {

namespace {

constexpr const char* kKinds[] = {Callback::kKind};
constexpr Attribute kAttributes[] = {
    {.name = "function", .type = AttributeType::kResource, .required = true, .choices = kKinds}};

// The inputs come first, then the result, then the answer.
template <int kInputs>
void run(const Lane& lane, const OpCall& call) noexcept {
  auto* answer = call[kInputs + 1].as<int64_t>();
  if (lane.index == 0) {
    void* memory[kInputs + 1];
    for (int k = 0; k <= kInputs; ++k) memory[k] = call[k].data;
    *answer = call.resource<Callback>(0).call(memory, kInputs + 1);
  }
  lane.barrier();
  if (*answer == 0) call.step->fault = Fault::kCallback;
}

// All arrays have the same number of rows; the answer has one element.
template <int kInputs>
void check(const OpCall& call) {
  for (int k = 1; k <= kInputs; ++k) {
    if (!call[k] || call[k].shape[0] == call[0].shape[0]) continue;
    refuse_shapes(call, 0, k, "must have the same number of rows");
  }
  const Tensor& answer = call[kInputs + 1];
  if (!answer || answer.shape[0] == 1) return;
  refuse(call, "answer is " + shape_text(answer) + ": must be (1,)");
}

void work(const OpCall&, int lanes, OpWork* work) { work->lanes = lanes; }

namespace forward {

constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes | only(Dtype::kInt64), .least_rank = 1},
    {.name = "y", .access = Access::kWrite, .dtypes = kRealDtypes, .least_rank = 1, .apart = true},
    {.name = "answer", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
};

}  // namespace forward

namespace vjp {

constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "x", .same_dtype = 0, .least_rank = 1},
    {.name = "y", .same_dtype = 0, .like = 0},
    {.name = "dx", .access = Access::kWrite, .same_dtype = 0, .like = 1, .apart = true},
    {.name = "answer", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
};

}  // namespace vjp

}  // namespace

extern const OpSchema function_ops[] = {
    {.name = "function",
     .operands = forward::kOperands,
     .attributes = kAttributes,
     .check = check<1>,
     .work = work,
     .cpu = always<run<1>>,
     .phases = phase::kForward,
     .program_only = true,
     .effects = true},
    {.name = "function_vjp",
     .operands = vjp::kOperands,
     .attributes = kAttributes,
     .check = check<3>,
     .work = work,
     .cpu = always<run<3>>,
     .phases = phase::kBackward,
     .program_only = true,
     .effects = true},
};
extern const size_t function_op_count = std::size(function_ops);

}  // namespace gradring
