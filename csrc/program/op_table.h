// The table from an operation's name to its kernels: what Executor calls, what validate checks.
#pragma once

#include <cstdint>
#include <string_view>

#include "ops/work.h"
#include "program/program.h"
#include "runtime/batch_source.h"
#include "runtime/team.h"

namespace gradring {

enum class Fault : uint8_t { kNone, kNonFinite, kLabel, kCallback };

// What one step is told. The same for all lanes; nobody writes it while the lanes run.
struct StepInputs {
  const Batch* batch = nullptr;
  double learning_rate = 0;
  int64_t update = 1;         // this update's number, from 1: Adam's t
  uint64_t seed = 0;          // keys the random numbers, with the sample's number and
  uint64_t draw = 0;          // this number, a new one for each forward pass
  bool check_finite = true;   // a loss that is not finite is a fault
  bool apply = true;          // run the updates; else leave parameters and state alone
  bool accumulate = false;    // add to the gradients instead of replacing them
  double pending_weight = 0;  // of the batches whose gradients are already in the sum
};

// One lane's view of a running step. The results are computed by every lane from the same memory, so all lanes agree
// without another barrier.
struct Frame {
  void* const* buffers = nullptr;
  const StepInputs* inputs = nullptr;

  double loss_sum = 0;     // over the batch's rows
  double loss_weight = 0;  // what to divide it by for the mean
  int64_t correct = 0;     // rows whose prediction is right, as the loss defines it
  double clip = 1;         // the factor that brings the gradients' norm below its limit
  double gradient_norm = 0;
  Fault fault = Fault::kNone;
  int64_t fault_row = -1;

  template <class U>
  U* get(const Instruction& instruction, int operand) const noexcept {
    const int32_t buffer = instruction.operands[static_cast<size_t>(operand)];
    return buffer < 0 ? nullptr : static_cast<U*>(buffers[buffer]);
  }
};

using Routine = void (*)(const Lane& lane, const Instruction& instruction, Frame& frame) noexcept;

// An operand as an instruction uses it.
struct Access {
  int operand;
  int64_t elements;
  Dtype dtype;
  bool reads;
  bool writes;
};

struct AccessList {
  static constexpr int kMost = Instruction::kOperands;
  Access items[kMost];
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
  // So little work that lane 0 does it alone: handing it over would take longer. Null: never. Not for operations that
  // write the frame, which every lane must do.
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

}  // namespace gradring
