#include "program/cpu/executor.h"

#include <algorithm>

#include "runtime/status.h"
#include "runtime/ticks.h"
#include "runtime/trace.h"

namespace gradring {

namespace {

// A program of at least this many operations takes about 20 microseconds, which is long enough to release the GIL for.
constexpr double kWorthTheGil = 2e6;

// Whether each lane needs its own call of the op, because the call holds the lane's step record.
bool reads_record(const OpSchema& op) {
  return op.effects || std::any_of(op.operands.begin(), op.operands.end(),
                                   [](const Operand& operand) { return operand.step != StepField::kNone; });
}

// Whether an op meets the other ranks of a data-parallel training, so that all of them must call it.
bool meets_others(const OpSchema& op) {
  return std::any_of(op.attributes.begin(), op.attributes.end(), [](const Attribute& attribute) {
    return attribute.type == AttributeType::kResource && std::string_view(attribute.choices[0]) == "meeting";
  });
}

StepPart part_of(const OpSchema& op) {
  if (meets_others(op) || find_operand(op, "planes") >= 0) return StepPart::kReduction;
  return op.phases == phase::kUpdate && op.fuses.product == nullptr ? StepPart::kUpdate : StepPart::kCompute;
}

[[noreturn]] void refuse_arena(const std::string& name, const std::string& what) {
  throw Error(Code::kInvalidArgument, "[program] arena " + name + " " + what);
}

// The address at which each arena of a program begins.
std::vector<std::byte*> starts_of(const std::vector<Arena>& wanted, const Arenas& arenas) {
  std::vector<std::byte*> starts;
  for (size_t i = 0; i < wanted.size(); ++i) {
    std::byte* const begin = arenas.at(wanted[i]).data;
    for (size_t j = 0; j < i; ++j) {
      if (begin >= starts[j] + wanted[j].bytes || starts[j] >= begin + wanted[i].bytes) continue;
      refuse_arena(wanted[i].name, "shares memory with " + wanted[j].name);
    }
    starts.push_back(begin);
  }
  return starts;
}

}  // namespace

void Arenas::set(const std::string& name, BufferKind kind, std::byte* data, int64_t bytes,
                 std::shared_ptr<const void> owner) {
  Memory memory{name, kind, data, bytes, std::move(owner)};
  for (Memory& old : all_) {
    if (old.name != name) continue;
    old = std::move(memory);
    return;
  }
  all_.push_back(std::move(memory));
}

const Arenas::Memory* Arenas::find(const std::string& name) const noexcept {
  for (const Memory& memory : all_)
    if (memory.name == name) return &memory;
  return nullptr;
}

const Arenas::Memory& Arenas::at(const Arena& arena) const {
  const Memory* const memory = find(arena.name);
  if (memory == nullptr) refuse_arena(arena.name, "has no memory");
  if (memory->kind != arena.kind) {
    refuse_arena(arena.name, "is of kind " + std::string(kBufferKindNames[static_cast<int>(arena.kind)]) +
                                 ", its memory of kind " + kBufferKindNames[static_cast<int>(memory->kind)]);
  }
  if (memory->bytes < arena.bytes) {
    refuse_arena(arena.name,
                 "needs " + std::to_string(arena.bytes) + " bytes, its memory has " + std::to_string(memory->bytes));
  }
  return *memory;
}

Executor::Executor(const Program& program, const Arenas& arenas, Team& team)
    : resources_(program.resources), constants_(program.constants), records_(static_cast<size_t>(team.lanes())) {
  validate(program);
  for (const Arena& arena : program.arenas)
    temp_arenas_.push_back(arena.kind == BufferKind::kTemp ? arena.name : std::string());
  const Schedule schedule = make_schedule(program, team.lanes());
  for (const auto& resource : resources_) resource_table_.push_back(resource.get());
  Arenas all = arenas;
  auto* const constants = reinterpret_cast<std::byte*>(constants_.data());
  if (!constants_.empty()) all.set("constants", BufferKind::kConst, constants, static_cast<int64_t>(constants_.size()));
  make_calls(program, starts_of(program.arenas, all));
  for (size_t i = 0; i < code_.size(); ++i) {
    code_[i].barrier = schedule.dispatches[i].barrier;
    code_[i].single_lane = schedule.dispatches[i].single_lane;
  }
  for (const Instruction& instruction : program.instructions) {
    const std::string& origin = instruction.origin;
    labels_.push_back(instruction.op->name + (origin.empty() ? origin : " (" + origin + ")"));
  }
  for (auto code = code_.rbegin(); code != code_.rend(); ++code) {
    if (code->when != static_cast<uint8_t>(When::kUnbounded)) break;
    code->tail = true;
  }
  trial_ = LaneTrial(schedule.shared_out ? team.lanes() : 1);
  keeps_gil_ = resources_.empty() && count_flops(program) < kWorthTheGil;
  team.reserve(schedule.scratch.per_lane, schedule.scratch.shared);
}

// Counts everything first, and reserves the vectors, because calls point into them.
void Executor::make_calls(const Program& program, const Starts& arenas) {
  const size_t lanes = records_.size();
  size_t calls = 0, tensors = 0, attributes = 0, extents = 0;
  for (const Instruction& instruction : program.instructions) {
    const size_t copies = reads_record(*instruction.op) ? lanes : 1;
    calls += copies;
    tensors += copies * instruction.op->operands.size();
    attributes += instruction.attributes.size();
    for (const Argument& argument : instruction.arguments) extents += 2 * argument.shape.size();
  }
  code_.reserve(program.instructions.size());
  calls_.reserve(calls), tensors_.resize(tensors), attributes_.reserve(attributes), extents_.reserve(extents);
  Tensor* at = tensors_.data();
  for (const Instruction& instruction : program.instructions) {
    const OpSchema& op = *instruction.op;
    const bool of_each = reads_record(op);
    const OpCall* first = calls_.data() + calls_.size();
    Tensor* const tensor = at;
    at = add_call(program, arenas, instruction, 0, at);
    const OpRun kernel = op.cpu(*first);
    for (size_t lane = 1; of_each && lane < lanes; ++lane) {
      at = std::copy(tensor, tensor + op.operands.size(), at);
      add_call(program, arenas, instruction, static_cast<int>(lane), at - op.operands.size());
    }
    code_.push_back({kernel, first, of_each ? -1 : 0, static_cast<uint8_t>(instruction.when), false, part_of(op), false,
                     false, meets_others(op)});
    meets_ = meets_ || code_.back().meets;
  }
}

// Makes the call of one lane, whose tensors begin at `at`. Lane 0's call writes shapes and attributes, which all lanes share.
Tensor* Executor::add_call(const Program& program, const Starts& arenas, const Instruction& instruction, int lane,
                           Tensor* at) {
  const OpSchema& op = *instruction.op;
  if (lane == 0) attributes_.insert(attributes_.end(), instruction.attributes.begin(), instruction.attributes.end());
  StepRecord& record = records_[static_cast<size_t>(lane)].step;
  for (const Argument& argument : instruction.arguments) {
    Tensor& tensor = at[argument.operand];
    if (const StepField field = op.operands[static_cast<size_t>(argument.operand)].step; field != StepField::kNone) {
      tensor = {address_of(record, field), nullptr, nullptr, 0, kStepFields[static_cast<size_t>(field)].dtype};
      continue;
    }
    if (lane == 0) {
      tensor = tensor_of(argument, nullptr);
      tensor.shape = extents_.data() + extents_.size();
      extents_.insert(extents_.end(), argument.shape.begin(), argument.shape.end());
      tensor.strides = extents_.data() + extents_.size();
      extents_.insert(extents_.end(), argument.strides.begin(), argument.strides.end());
    }
    const Buffer& buffer = program.buffers[static_cast<size_t>(argument.buffer)];
    tensor.data = bound(buffer, arenas, argument.offset, &tensor);
  }
  const AttributeValue* const attributes = attributes_.data() + attributes_.size() - instruction.attributes.size();
  calls_.push_back(
      {&op, op.name, nullptr, at, attributes, reads_record(op) ? &record : nullptr, resource_table_.data()});
  return at + op.operands.size();
}

// Returns a tensor's address, if it is known now. If not, it notes the tensor, so that each run can set the address.
void* Executor::bound(const Buffer& buffer, const Starts& arenas, int64_t offset, Tensor* tensor) {
  switch (buffer.kind) {
    case BufferKind::kInput: inputs_.push_back({tensor, buffer.offset, offset}); return nullptr;
    case BufferKind::kOutput: outputs_.push_back({tensor, 0, offset}); return nullptr;
    case BufferKind::kTemp: temps_.push_back({tensor, buffer.arena, buffer.offset + offset}); break;
    default: break;
  }
  return arenas[static_cast<size_t>(buffer.arena)] + buffer.offset + offset;
}

void Executor::place_temps(const std::string& name, std::byte* memory) noexcept {
  for (const Binding& temp : temps_)
    if (temp_arenas_[static_cast<size_t>(temp.number)] == name) temp.tensor->data = memory + temp.offset;
}

void Executor::bind(const Batch& batch) noexcept {
  // Casting away const is right, because validate has checked that no kernel writes to an input of the program.
  for (const Binding& input : inputs_) {
    auto* field = static_cast<std::byte*>(const_cast<void*>(batch.fields[input.number]));
    input.tensor->data = field + input.offset;
  }
}

void Executor::bind_output(void* memory) noexcept {
  for (const Binding& output : outputs_) output.tensor->data = static_cast<std::byte*>(memory) + output.offset;
}

inline void Executor::call(const Code& code, const Lane& lane) noexcept {
  if (!code.single_lane) return code.run(lane, code.calls[lane.index & code.lane_mask]);
  if (lane.index == 0) code.run(Lane{lane.team, 0, 1}, *code.calls);
}

const StepRecord& Executor::run(const Lane& lane, const StepRecord& given, StepTicks* account) noexcept {
  StepRecord& step = records_[static_cast<size_t>(lane.index)].step;
  step = given;
  if (traced_) {
    run_traced(lane, &step, account);
    return step;
  }
  uint64_t since = account != nullptr ? ticks() : 0;
  StepPart part = StepPart::kCompute;
  for (const Code& code : code_) {
    const bool runs = (code.when & step.moment) != 0;
    if (!runs && code.tail) break;
    // Keep the barrier even if its instruction is left out, because it also orders later instructions.
    if (code.barrier) lane.barrier();
    if (!runs) continue;
    if (account != nullptr && code.part != part) {
      const uint64_t now = ticks();
      (*account)[part] += now - since;
      since = now;
      part = code.part;
    }
    call(code, lane);
    if (step.fault != Fault::kNone) {
      end_by_fault(lane, code, step);
      break;
    }
  }
  if (account != nullptr) (*account)[part] += ticks() - since;
  return step;
}

// A rank that has found a fault before the ranks meet still goes to the meeting, where the others learn of it. Later faults are
// those that all ranks have found at or after a meeting, from the same numbers.
void Executor::end_by_fault(const Lane& lane, const Code& at, const StepRecord& step) const noexcept {
  if (!meets_) return;
  const auto due = [&step](const Code& code) { return code.meets && (code.when & step.moment) != 0; };
  const Code *const begin = code_.data(), *const end = begin + code_.size();
  if (std::any_of(begin, &at + 1, due)) return;
  if (const Code* const next = std::find_if(&at + 1, end, due); next != end) call(*next, lane);
}

void Executor::trace(bool on) {
  if (on && names_.empty())
    for (const std::string& label : labels_) names_.push_back(trace_name(label));
  traced_ = on;
}

// Does what run does, and records spans. The spans of a lane follow each other without a gap.
void Executor::run_traced(const Lane& lane, StepRecord* step, StepTicks* account) noexcept {
  const uint64_t start = ticks();
  StepTicks parts;
  int64_t now = monotonic_ns();
  for (size_t i = 0; i < code_.size(); ++i) {
    const Code& code = code_[i];
    const bool runs = (code.when & step->moment) != 0;
    if (!runs && code.tail) break;
    if (code.barrier && lane.count > 1) {
      lane.barrier();
      const int64_t met = monotonic_ns();
      trace_record("barrier", now, met);
      now = met;
    }
    if (!runs) continue;
    const uint64_t since = code.part != StepPart::kCompute ? ticks() : 0;
    call(code, lane);
    const int64_t end = monotonic_ns();
    if (!code.single_lane || lane.index == 0) trace_record(names_[i], now, end);
    now = end;
    if (code.part != StepPart::kCompute) parts[code.part] += ticks() - since;
    if (step->fault != Fault::kNone) {
      end_by_fault(lane, code, *step);
      break;
    }
  }
  if (account == nullptr) return;
  const uint64_t update = parts[StepPart::kUpdate], reduction = parts[StepPart::kReduction];
  (*account)[StepPart::kUpdate] += update;
  (*account)[StepPart::kReduction] += reduction;
  (*account)[StepPart::kCompute] += ticks() - start - update - reduction;
}

}  // namespace gradring
