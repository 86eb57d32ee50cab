#include "program/callback.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// callback: operands 0 .. 5 read, 6 written, 7 one int64 that carries the answer to all lanes; integers 0: the
// Callback's address, 1 .. 6: elements of operands 0 .. 5, 7: of operand 6.
constexpr int kOut = 6;
constexpr int kAnswer = 7;

void call(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  auto* answer = frame.get<int64_t>(i, kAnswer);
  if (lane.index == 0) {
    const auto* callback = reinterpret_cast<const Callback*>(i.integers[0]);
    void* memory[Instruction::kOperands];
    for (int k = 0; k < Instruction::kOperands; ++k) memory[k] = frame.get<void>(i, k);
    *answer = callback->function(callback->context, memory, kAnswer);
  }
  lane.barrier();
  if (*answer == 0) frame.step.fault = Fault::kCallback;
}

void accesses(const Instruction& i, Dtype real, AccessList* list) {
  if (i.integers[0] == 0) throw Error(Code::kInvalidArgument, "[program] callback: nothing to call");
  for (int k = 0; k < kOut; ++k) {
    if (i.operands[static_cast<size_t>(k)] >= 0)
      list->add(k, i.integers[static_cast<size_t>(k) + 1], real, true, false);
  }
  list->add(kOut, i.integers[7], real, false, true);
  list->add(kAnswer, 1, Dtype::kInt64, false, true);
}

const OpEntry kOps[] = {{"callback", Phase::kCompute, accesses, call, call, nullptr}};

}  // namespace

OpSpan callback_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
