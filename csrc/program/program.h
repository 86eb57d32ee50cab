// Program: a training step as data. A straight line of instructions over buffers of known size, planned by
// python/gradring/graph and run by Executor.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "gradring/export.h"
#include "program/step_record.h"
#include "runtime/dtype.h"

namespace gradring {

struct OpEntry;

// Parameters, gradients and optimizer state lie in flat arenas that outlive the program; temps share one arena, where
// buffers that are never alive together may overlap.
enum class BufferKind : uint8_t { kInput, kOutput, kParam, kGrad, kState, kTemp };
inline constexpr int kBufferKinds = 6;

// Inputs and outputs have no arena: their memory comes with each batch.
constexpr bool has_arena(BufferKind kind) noexcept { return kind > BufferKind::kOutput; }

struct Buffer {
  BufferKind kind = BufferKind::kTemp;
  Dtype dtype = Dtype::kFloat32;
  int64_t elements = 0;
  int64_t offset = 0;  // bytes from the arena's start; without an arena: the number of the field
};

struct Instruction {
  static constexpr int kOperands = 8;
  static constexpr int kIntegers = 8;
  static constexpr int kReals = 6;

  const OpEntry* op = nullptr;
  When when = When::kAlways;
  bool solo = false;                                                        // lane 0 alone runs it
  bool barrier = false;                                                     // all lanes wait for each other before it
  std::array<int32_t, kOperands> operands{-1, -1, -1, -1, -1, -1, -1, -1};  // buffer numbers; -1: absent
  std::array<int64_t, kIntegers> integers{};
  std::array<double, kReals> reals{};
};

struct Program {
  Dtype dtype = Dtype::kFloat32;  // float32 or float64: what the kernels compute in
  std::vector<Buffer> buffers;
  std::vector<Instruction> instructions;
};

// Throws Error(kInvalidArgument) unless every instruction finds its operands present, of the right dtype and large
// enough, and every buffer lies within its arena. bytes: the arenas' sizes by kind; of inputs and outputs, how many
// there are.
GRADRING_API void validate(const Program& program, const std::array<int64_t, kBufferKinds>& bytes);

// Puts a barrier before each instruction that reads or writes memory which one since the last barrier has written, or
// writes memory which one has read. Memory is compared, not buffer numbers, so shared temps and the kernels' shared
// scratch are covered. lanes: how many the scratch is asked for.
GRADRING_API void place_barriers(Program* program, int lanes);

}  // namespace gradring
