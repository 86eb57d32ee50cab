#include "program/program.h"

#include "ops/layout.h"
#include "runtime/status.h"

namespace gradring {

namespace {

const Operand& operand_of(const Instruction& instruction, const Argument& argument) {
  return instruction.op->operands[static_cast<size_t>(argument.operand)];
}

[[noreturn]] void refuse_argument(const Instruction& instruction, const Argument& argument, const std::string& what) {
  throw Error(Code::kInvalidArgument,
              "[" + std::string(instruction.op->name) + "] " + operand_of(instruction, argument).name + " " + what);
}

// Whether the kernels of an op can read an operand with these strides.
bool fits_layout(const Operand& operand, const Argument& argument) {
  const auto item = static_cast<int64_t>(size_of(argument.dtype));
  const std::vector<int64_t>& shape = argument.shape;
  const std::vector<int64_t>& strides = argument.strides;
  if (strides == dense_strides(shape, argument.dtype)) return true;
  return shape.size() == 2 && has_dense_vectors(operand.layout, shape.data(), strides.data(), item, false);
}

void check_argument(const Instruction& instruction, const Argument& argument) {
  const Operand& operand = operand_of(instruction, argument);
  const bool field = operand.step != StepField::kNone;
  if (field != (argument.buffer < 0)) {
    refuse_argument(instruction, argument,
                    field ? "lies in a buffer: must be a field of the step record" : "is absent");
  }
  if (field) return;
  if (static_cast<int>(argument.dtype) >= kDtypes) refuse_argument(instruction, argument, "has no dtype");
  if (argument.shape.size() > Shape::kMost || argument.strides.size() != argument.shape.size()) {
    refuse_argument(instruction, argument, "must have one stride for each dimension, and at most 64");
  }
  int64_t elements = 1;
  for (const int64_t extent : argument.shape) {
    if (extent < 0 || __builtin_mul_overflow(elements, extent ? extent : 1, &elements)) {
      refuse_argument(instruction, argument,
                      "has the shape " + shape_text(tensor_of(argument, nullptr)) +
                          ": sizes must be at least 0, and their product below 2**63");
    }
  }
  if (!fits_layout(operand, argument)) refuse_argument(instruction, argument, "has strides that its op does not take");
}

// The offset, in its buffer, of the end of the last byte that an operand touches. It saturates instead of overflowing.
int64_t end_of(const Argument& argument) {
  int64_t end = argument.offset;
  for (size_t axis = 0; axis < argument.shape.size(); ++axis) {
    if (argument.shape[axis] == 0) return argument.offset;
    int64_t span = 0;
    if (__builtin_mul_overflow(argument.shape[axis] - 1, argument.strides[axis], &span) ||
        __builtin_add_overflow(end, span, &end)) {
      return INT64_MAX;
    }
  }
  const auto item = static_cast<int64_t>(size_of(argument.dtype));
  return __builtin_add_overflow(end, item, &end) ? INT64_MAX : end;
}

void check_place(const Program& program, const Instruction& instruction, const Argument& argument) {
  if (argument.buffer < 0) return;
  if (static_cast<size_t>(argument.buffer) >= program.buffers.size()) {
    refuse_argument(
        instruction, argument,
        "lies in buffer " + std::to_string(argument.buffer) + ": there are " + std::to_string(program.buffers.size()));
  }
  const Buffer& buffer = program.buffers[static_cast<size_t>(argument.buffer)];
  const auto item = static_cast<int64_t>(size_of(argument.dtype));
  // Check each part alone first, because their sum may overflow; the sum is used only once it is known to lie in the buffer.
  const int64_t begin = has_arena(buffer.kind) ? buffer.offset : 0;
  if (argument.offset < 0 || (argument.offset % item + begin % item) % item != 0) {
    refuse_argument(instruction, argument,
                    "begins at byte " + std::to_string(argument.offset) + " of a buffer at byte " +
                        std::to_string(begin) + ": must be a multiple of " + std::to_string(item) +
                        ", and not negative");
  }
  if (end_of(argument) > buffer.bytes) {
    refuse_argument(
        instruction, argument,
        "ends at byte " + std::to_string(end_of(argument)) + ", its buffer at " + std::to_string(buffer.bytes));
  }
  const bool given = buffer.kind == BufferKind::kInput || buffer.kind == BufferKind::kConst;
  if (given && operand_of(instruction, argument).access != Access::kRead) {
    const char* what = buffer.kind == BufferKind::kInput ? "is an input" : "is a constant";
    refuse_argument(instruction, argument, std::string(what) + " of the program: must not be written");
  }
}

void check_resources(const Program& program, const Instruction& instruction) {
  for (size_t i = 0; i < instruction.op->attributes.size(); ++i) {
    const Attribute& attribute = instruction.op->attributes[i];
    if (attribute.type != AttributeType::kResource) continue;
    const auto number = static_cast<uint64_t>(instruction.attributes[i].integer);
    const Resource* resource = number < program.resources.size() ? program.resources[number].get() : nullptr;
    if (resource != nullptr && std::string_view(resource->kind()) == attribute.choices[0]) continue;
    throw Error(Code::kInvalidArgument, "[" + std::string(instruction.op->name) + "] " + attribute.name +
                                            " is number " + std::to_string(instruction.attributes[i].integer) +
                                            " of the program's resources: must be a " + attribute.choices[0]);
  }
}

[[noreturn]] void refuse_buffer(size_t number, const std::string& what) {
  throw Error(Code::kInvalidArgument, "[program] buffer " + std::to_string(number) + " " + what);
}

// A field of the batch, or an output.
void check_field(const Program& program, size_t number, const Buffer& buffer) {
  const bool input = buffer.kind == BufferKind::kInput;
  const int count = input ? program.fields : program.outputs;
  if (buffer.bytes >= 0 && buffer.offset >= 0 && buffer.offset < count && buffer.arena < 0) return;
  refuse_buffer(number, "is " + std::string(input ? "field " : "output ") + std::to_string(buffer.offset) +
                            ": there are " + std::to_string(count));
}

void check_buffer(const Program& program, size_t number) {
  const Buffer& buffer = program.buffers[number];
  if (!has_arena(buffer.kind)) return check_field(program, number, buffer);
  if (buffer.arena < 0 || static_cast<size_t>(buffer.arena) >= program.arenas.size()) {
    refuse_buffer(number, "lies in arena " + std::to_string(buffer.arena) + ": there are " +
                              std::to_string(program.arenas.size()));
  }
  const Arena& arena = program.arenas[static_cast<size_t>(buffer.arena)];
  if (arena.kind != buffer.kind) {
    refuse_buffer(number, "is of kind " + std::string(kBufferKindNames[static_cast<int>(buffer.kind)]) +
                              ", its arena " + arena.name + " of kind " +
                              kBufferKindNames[static_cast<int>(arena.kind)]);
  }
  int64_t end = 0;
  const bool overflow = __builtin_add_overflow(buffer.offset, buffer.bytes, &end);
  if (buffer.bytes >= 0 && buffer.offset >= 0 && !overflow && end <= arena.bytes) return;
  refuse_buffer(number,
                "ends at " + std::to_string(end) + ", its arena " + arena.name + " at " + std::to_string(arena.bytes));
}

void check_arenas(const std::vector<Arena>& arenas) {
  for (size_t i = 0; i < arenas.size(); ++i) {
    const Arena& arena = arenas[i];
    const std::string which = "[program] arena " + arena.name + " ";
    if (!has_arena(arena.kind)) throw Error(Code::kInvalidArgument, which + "is of a kind that has none");
    if (arena.bytes < 0) throw Error(Code::kInvalidArgument, which + "has " + std::to_string(arena.bytes) + " bytes");
    for (size_t j = 0; j < i; ++j)
      if (arenas[j].name == arena.name) throw Error(Code::kInvalidArgument, which + "is there twice");
  }
}

char stand_in[64];  // tensors whose memory no kernel reads point here

}  // namespace

Instruction::Instruction(const OpSchema& schema) : op(&schema) {
  for (const Attribute& attribute : schema.attributes) attributes.push_back(attribute.otherwise);
}

std::vector<int64_t> dense_strides(const std::vector<int64_t>& shape, Dtype dtype) {
  std::vector<int64_t> strides(shape.size());
  auto stride = static_cast<int64_t>(size_of(dtype));
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    if (__builtin_mul_overflow(stride, shape[axis] ? shape[axis] : 1, &stride)) stride = 0;
  }
  return strides;
}

Tensor tensor_of(const Argument& argument, void* data) noexcept {
  return {data, argument.shape.data(), argument.strides.data(), static_cast<int32_t>(argument.shape.size()),
          argument.dtype};
}

CallData::CallData(const Instruction& instruction) : tensors_(instruction.op->operands.size()) {
  const OpSchema& op = *instruction.op;
  for (const Argument& argument : instruction.arguments) {
    Tensor& tensor = tensors_[static_cast<size_t>(argument.operand)];
    tensor = tensor_of(argument, stand_in);
    const StepField field = op.operands[static_cast<size_t>(argument.operand)].step;
    if (field != StepField::kNone)
      tensor = {stand_in, nullptr, nullptr, 0, kStepFields[static_cast<size_t>(field)].dtype};
  }
  call_ = {&op, op.name, nullptr, tensors_.data(), instruction.attributes.data()};
}

namespace {

// The program is null for an instruction alone, which has no resources.
void check_instruction(const Program* program, const Instruction& instruction) {
  const OpSchema& op = *instruction.op;
  const std::string tag = "[" + std::string(op.name) + "] ";
  if (op.phases == 0) throw Error(Code::kInvalidArgument, tag + "has no place in a program");
  if (instruction.attributes.size() != op.attributes.size()) {
    throw Error(Code::kInvalidArgument, tag + "has " + std::to_string(instruction.attributes.size()) +
                                            " attributes: must be " + std::to_string(op.attributes.size()));
  }
  uint64_t seen = 0;
  for (const Argument& argument : instruction.arguments) {
    const auto number = static_cast<size_t>(argument.operand);
    if (argument.operand < 0 || number >= op.operands.size() || (seen >> number & 1) != 0) {
      throw Error(Code::kInvalidArgument, tag + "operand " + std::to_string(argument.operand) +
                                              " is unknown or there twice: there are " +
                                              std::to_string(op.operands.size()));
    }
    seen |= uint64_t{1} << number;
    check_argument(instruction, argument);
  }
  const CallData data(instruction);
  OpCall call = data.call();
  std::vector<Resource*> resources;
  if (program != nullptr) {
    check_resources(*program, instruction);
    for (const auto& resource : program->resources) resources.push_back(resource.get());
    call.resources = resources.data();
  }
  check_call(call, true);
  for (const Argument& argument : instruction.arguments) {
    const int like = operand_of(instruction, argument).rows_like;
    if (like < 0 || argument.shape.size() != 2 || data.call()[like].rank != 2) continue;
    const Tensor& other = data.call()[like];  // it may have another dtype, so elements count, as they do in kernels
    const auto rows_apart = [](int64_t bytes, Dtype dtype) { return bytes / static_cast<int64_t>(size_of(dtype)); };
    if (rows_apart(argument.strides[0], argument.dtype) == rows_apart(other.strides[0], other.dtype)) continue;
    refuse_argument(instruction, argument,
                    "must have its rows as far apart as " + std::string(op.operands[static_cast<size_t>(like)].name));
  }
  if (op.cpu(data.call()) == nullptr) throw Error(Code::kWrongType, tag + "has no kernel for these dtypes");
}

}  // namespace

void check_instruction(const Instruction& instruction) { check_instruction(nullptr, instruction); }

std::string told_of(const std::string& message, size_t number, const std::string& origin) {
  return message + " (instruction " + std::to_string(number) + (origin.empty() ? ")" : ", " + origin + ")");
}

void validate(const Program& program) {
  check_arenas(program.arenas);
  for (size_t i = 0; i < program.buffers.size(); ++i) check_buffer(program, i);
  for (size_t number = 0; number < program.instructions.size(); ++number) {
    const Instruction& instruction = program.instructions[number];
    if (instruction.op == nullptr) {
      throw Error(Code::kInvalidArgument, told_of("[program] no such op", number, instruction.origin));
    }
    try {
      check_instruction(&program, instruction);
      for (const Argument& argument : instruction.arguments) check_place(program, instruction, argument);
    } catch (const Error& error) {
      throw Error(error.code(), told_of(error.what(), number, instruction.origin));
    }
  }
}

double count_flops(const Program& program) {
  double flops = 0;
  for (const Instruction& instruction : program.instructions) {
    if (instruction.when == When::kUnbounded) continue;
    flops += count_flops(CallData(instruction).call());
  }
  return flops;
}

}  // namespace gradring
