// Program: a training step as data. A straight line of instructions over buffers of known size, planned by
// python/gradring/graph and run by an executor. Each instruction is a call of an op of the registry (ops/op.h): its operands
// are tensors in the program's buffers, or fields of the step record.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gradring/export.h"
#include "ops/op.h"
#include "ops/resource.h"
#include "ops/step_record.h"
#include "runtime/dtype.h"

namespace gradring {

// Parameters, gradients and optimizer state lie in flat arenas that outlive the program; temps lie in arenas of the
// engine's, where buffers that are never alive together may overlap. Constants are part of the program, and no op writes
// them.
enum class BufferKind : uint8_t { kInput, kOutput, kParam, kGrad, kState, kTemp, kConst };
inline constexpr int kBufferKinds = 7;
inline constexpr const char* kBufferKindNames[kBufferKinds] = {"input", "output", "param", "grad",
                                                               "state", "temp",   "const"};

// Inputs and outputs have no arena: their memory comes with each batch.
constexpr bool has_arena(BufferKind kind) noexcept { return kind > BufferKind::kOutput; }

// An arena that the buffers of a program lie in. A program may have several of one kind, and names them; the executor that runs it
// has memory of these names.
struct Arena {
  std::string name;
  BufferKind kind = BufferKind::kTemp;
  int64_t bytes = 0;  // what the program needs of it

  bool operator==(const Arena&) const = default;
};

struct Buffer {
  BufferKind kind = BufferKind::kTemp;
  int64_t bytes = 0;
  int64_t offset = 0;  // bytes from the arena's start; without an arena: the field's number
  int32_t arena = -1;  // its number in the program's table; -1: it has none

  bool operator==(const Buffer&) const = default;
};

// An operand of an instruction: a view of a buffer, or a field of the step record.
struct Argument {
  int32_t operand = 0;  // its number in the schema
  int32_t buffer = -1;  // -1: the operand is a field of the step record
  Dtype dtype = kNoDtype;
  int64_t offset = 0;            // bytes from the buffer's start
  std::vector<int64_t> shape;    // elements
  std::vector<int64_t> strides;  // bytes

  bool operator==(const Argument&) const = default;
};

struct GRADRING_API Instruction {
  const OpSchema* op = nullptr;
  When when = When::kAlways;
  std::vector<Argument> arguments;         // the operands that are given
  std::vector<AttributeValue> attributes;  // all, in the schema's order
  std::string origin;                      // the layer it comes from, for errors

  Instruction() = default;
  // Has no arguments yet, and the schema's default for each attribute.
  explicit Instruction(const OpSchema& schema);
};

struct Program {
  std::vector<Arena> arenas;
  std::vector<Buffer> buffers;
  std::vector<Instruction> instructions;
  std::vector<std::shared_ptr<Resource>> resources;
  int fields = 0;         // how many fields a batch has
  int outputs = 0;        // arrays that the program delivers
  std::string constants;  // bytes: the arena "constants", of kind kConst
};

// The strides, in bytes, of an array without gaps.
GRADRING_API std::vector<int64_t> dense_strides(const std::vector<int64_t>& shape, Dtype dtype);

// An instruction's call, with tensors that point to no memory of their own: for checks, schedules and counts.
class GRADRING_API CallData {
 public:
  explicit CallData(const Instruction& instruction);
  CallData(const CallData&) = delete;
  CallData& operator=(const CallData&) = delete;

  const OpCall& call() const noexcept { return call_; }

 private:
  std::vector<Tensor> tensors_;
  OpCall call_;
};

// Makes the tensor of an argument at this address.
GRADRING_API Tensor tensor_of(const Argument& argument, void* data) noexcept;

// Checks an instruction's arguments and attributes against its schema, and that it has a kernel. Throws Error.
GRADRING_API void check_instruction(const Instruction& instruction);

// The message of an error about an instruction, such as "[linear] x is missing (instruction 0, 0.Linear(5, 4))".
GRADRING_API std::string told_of(const std::string& message, size_t number, const std::string& origin);

// Throws Error unless every instruction is a legal call, its operands lie inside their buffers, and the buffers lie
// inside their arenas, whose sizes the program states.
GRADRING_API void validate(const Program& program);

// The multiplications and additions of a step on its usual route.
GRADRING_API double count_flops(const Program& program);

}  // namespace gradring
