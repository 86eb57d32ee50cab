// The table from an operation's name to its kernels: what Executor calls, what validate checks.
#pragma once

#include <cstdint>
#include <string_view>

#include "ops/work.h"
#include "program/program.h"
#include "program/step_record.h"
#include "runtime/batch_source.h"
#include "runtime/team.h"

namespace gradring {

// One lane's view of a running step.
struct Frame {
  void* const* buffers = nullptr;
  const Batch* batch = nullptr;
  uint8_t moment = gradring::moment(true, true);  // which instructions run
  StepRecord step;

  // A gradient may be infinite: updates that are fused into products are left out, and separate ones run instead.
  void leave_bounded_route() noexcept {
    moment = static_cast<uint8_t>((moment & ~static_cast<unsigned>(When::kBounded)) |
                                  static_cast<unsigned>(When::kUnbounded));
  }

  template <class U>
  U* get(const Instruction& instruction, int operand) const noexcept {
    const int32_t buffer = instruction.operands[static_cast<size_t>(operand)];
    return buffer < 0 ? nullptr : static_cast<U*>(buffers[buffer]);
  }
};

using Routine = void (*)(const Lane& lane, const Instruction& instruction, Frame& frame) noexcept;

// An operand as an instruction uses it.
struct OperandAccess {
  int operand;
  int64_t elements;
  Dtype dtype;
  bool reads;
  bool writes;
};

struct AccessList {
  static constexpr int kMost = Instruction::kOperands;
  OperandAccess items[kMost];
  int count = 0;

  void add(int operand, int64_t elements, Dtype dtype, bool reads, bool writes) noexcept {
    items[count++] = {operand, elements, dtype, reads, writes};
  }
};

enum class Phase : uint8_t { kCompute, kUpdate };

struct OpEntry {
  std::string_view name;
  Phase phase = Phase::kCompute;
  // Lists the operands that the instruction must have and may have; `real` is the program's dtype. An operand that is
  // absent and optional is not listed. Throws Error if integers or reals make no sense.
  void (*accesses)(const Instruction& instruction, Dtype real, AccessList* list) = nullptr;
  Routine run_float = nullptr;
  Routine run_double = nullptr;
  ScratchBytes (*scratch)(const Instruction& instruction, Dtype real, int lanes) = nullptr;  // null: none
  // Whether there is so little work that lane 0 does it alone, because handing it over would take longer. Null: never.
  // An operation that writes the step record has none, as every lane must run it.
  bool (*solo)(const Instruction& instruction) noexcept = nullptr;
  bool scalar = false;  // a few numbers, looked at by every lane
};

// Null if there is no such operation.
GRADRING_API const OpEntry* find_op(std::string_view name) noexcept;

// Shorthand for the tables in ops_*.cc.
struct OpSpan {
  const OpEntry* begin;
  const OpEntry* end;
};
OpSpan matmul_ops() noexcept;
OpSpan matmul_update_ops() noexcept;
OpSpan element_ops() noexcept;
OpSpan loss_ops() noexcept;
OpSpan update_ops() noexcept;
OpSpan callback_ops() noexcept;
OpSpan check_ops() noexcept;

}  // namespace gradring
