#include "program/program.h"

#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr const char* kKindNames[kBufferKinds] = {"input", "output", "param", "grad", "state", "temp"};

// A range of memory that an instruction touches; inputs and outputs count by field.
struct Touch {
  BufferKind kind;
  int64_t begin;
  int64_t end;
  bool writes;
  bool solo;
  When when;
};

std::vector<Touch> touches(const Program& program, const Instruction& instruction) {
  AccessList list;
  instruction.op->accesses(instruction, program.dtype, &list);
  std::vector<Touch> result;
  for (int i = 0; i < list.count; ++i) {
    const OperandAccess& access = list.items[i];
    const Buffer& buffer =
        program.buffers[static_cast<size_t>(instruction.operands[static_cast<size_t>(access.operand)])];
    const int64_t bytes = has_arena(buffer.kind) ? access.elements * static_cast<int64_t>(size_of(access.dtype)) : 1;
    result.push_back(
        {buffer.kind, buffer.offset, buffer.offset + bytes, access.writes, instruction.solo, instruction.when});
  }
  return result;
}

bool conflict(const Touch& a, const Touch& b) {
  if (a.solo && b.solo) return false;  // lane 0 keeps its own order
  if (exclusive(a.when, b.when)) return false;
  return a.kind == b.kind && (a.writes || b.writes) && a.begin < b.end && b.begin < a.end;
}

[[noreturn]] void fail(size_t number, const Instruction& instruction, const std::string& what) {
  throw Error(Code::kInvalidArgument, "[program] instruction " + std::to_string(number) + " (" +
                                          std::string(instruction.op ? instruction.op->name : "?") + "): " + what);
}

}  // namespace

void validate(const Program& program, const std::array<int64_t, kBufferKinds>& bytes) {
  if (program.dtype != Dtype::kFloat32 && program.dtype != Dtype::kFloat64) {
    throw Error(Code::kInvalidArgument,
                std::string("[program] dtype is ") + dtype_name(program.dtype) + ": must be float32 or float64");
  }
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& buffer = program.buffers[i];
    const int64_t size = static_cast<int64_t>(size_of(buffer.dtype));
    const int64_t end = has_arena(buffer.kind) ? buffer.offset + buffer.elements * size : buffer.offset + 1;
    const bool aligned = !has_arena(buffer.kind) || buffer.offset % size == 0;
    if (buffer.elements < 0 || buffer.offset < 0 || end > bytes[static_cast<size_t>(buffer.kind)] || !aligned) {
      throw Error(Code::kInvalidArgument, "[program] buffer " + std::to_string(i) + " ends at " + std::to_string(end) +
                                              ", its " + kKindNames[static_cast<int>(buffer.kind)] + " arena at " +
                                              std::to_string(bytes[static_cast<size_t>(buffer.kind)]));
    }
  }
  for (size_t number = 0; number < program.instructions.size(); ++number) {
    const Instruction& instruction = program.instructions[number];
    if (instruction.op == nullptr) fail(number, instruction, "no such operation");
    AccessList list;
    instruction.op->accesses(instruction, program.dtype, &list);
    for (int i = 0; i < list.count; ++i) {
      const OperandAccess& access = list.items[i];
      const int32_t operand = instruction.operands[static_cast<size_t>(access.operand)];
      const std::string name = "operand " + std::to_string(access.operand);
      if (operand < 0 || static_cast<size_t>(operand) >= program.buffers.size()) {
        fail(number, instruction, name + " is absent");
      }
      const Buffer& buffer = program.buffers[static_cast<size_t>(operand)];
      if (buffer.dtype != access.dtype) {
        fail(number, instruction, name + " is " + dtype_name(buffer.dtype) + ", must be " + dtype_name(access.dtype));
      }
      if (access.elements < 0 || access.elements > buffer.elements) {
        fail(number, instruction,
             name + " has " + std::to_string(buffer.elements) + " elements, needs " + std::to_string(access.elements));
      }
      if (access.writes && buffer.kind == BufferKind::kInput) fail(number, instruction, name + " is an input");
    }
  }
}

void place_barriers(Program* program, int lanes) {
  std::vector<Touch> since;                           // the last barrier
  bool shared_scratch = false, solo_scratch = false;  // used since, by all lanes or by lane 0 alone
  for (Instruction& instruction : program->instructions) {
    instruction.solo = instruction.op->solo != nullptr && instruction.op->solo(instruction);
    const std::vector<Touch> now = touches(*program, instruction);
    const bool scratch =
        instruction.op->scratch != nullptr && instruction.op->scratch(instruction, program->dtype, lanes).shared > 0;
    bool needed = scratch && (shared_scratch || (solo_scratch && !instruction.solo));
    for (const Touch& a : now) {
      for (const Touch& b : since) needed = needed || conflict(a, b);
    }
    instruction.barrier = needed;
    if (needed) {
      since.clear();
      shared_scratch = solo_scratch = false;
    }
    (instruction.solo ? solo_scratch : shared_scratch) |= scratch;
    since.insert(since.end(), now.begin(), now.end());
  }
}

}  // namespace gradring
