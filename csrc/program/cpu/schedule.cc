#include "program/cpu/schedule.h"

#include <algorithm>

namespace gradring {

namespace {

// A range of memory that an instruction reads or writes. The field identifies the memory of an input or output.
struct Touch {
  BufferKind kind;
  int32_t arena;
  int64_t begin;
  int64_t end;
  bool writes;
  bool single_lane;
  When when;
};

int64_t bytes_of(const Argument& argument) {
  int64_t last = 0;
  for (size_t axis = 0; axis < argument.shape.size(); ++axis) {
    if (argument.shape[axis] == 0) return 0;
    last += (argument.shape[axis] - 1) * argument.strides[axis];
  }
  return last + static_cast<int64_t>(size_of(argument.dtype));
}

std::vector<Touch> touches(const Program& program, const Instruction& instruction, bool single_lane) {
  std::vector<Touch> result;
  for (const Argument& argument : instruction.arguments) {
    if (argument.buffer < 0) continue;  // each lane has a step record of its own
    const Buffer& buffer = program.buffers[static_cast<size_t>(argument.buffer)];
    const bool writes = instruction.op->operands[static_cast<size_t>(argument.operand)].access != Access::kRead;
    const int64_t begin = has_arena(buffer.kind) ? buffer.offset + argument.offset : buffer.offset;
    const int64_t end = begin + (has_arena(buffer.kind) ? bytes_of(argument) : 1);
    result.push_back({buffer.kind, buffer.arena, begin, end, writes, single_lane, instruction.when});
  }
  return result;
}

bool conflict(const Touch& a, const Touch& b) {
  if (a.single_lane && b.single_lane) return false;  // lane 0 keeps its own order
  if (exclusive(a.when, b.when)) return false;
  return a.kind == b.kind && a.arena == b.arena && (a.writes || b.writes) && a.begin < b.end && b.begin < a.end;
}

OpWork work_of(const OpCall& call, int lanes) {
  OpWork work;
  work.awake = true;
  call.op->work(call, lanes, &work);
  return work;
}

}  // namespace

Schedule make_schedule(const Program& program, int lanes) {
  Schedule schedule;
  std::vector<Touch> since;  // the memory that instructions have read or written since the last barrier
  // Whether an instruction has used scratch memory since the last barrier: on all lanes, or on lane 0 alone.
  bool shared_scratch = false, single_scratch = false;
  for (const Instruction& instruction : program.instructions) {
    const OpSchema& op = *instruction.op;
    const CallData data(instruction);
    const OpWork all = work_of(data.call(), lanes), one = work_of(data.call(), 1);
    Dispatch dispatch;
    // An instruction that writes the step record must run on every lane, because each lane has a record of its own.
    dispatch.single_lane = !op.effects && all.alone.value_or(work_of(data.call(), std::max(lanes, 2)).lanes == 1);
    const std::vector<Touch> now = touches(program, instruction, dispatch.single_lane);
    const bool scratch = all.scratch.shared > 0;
    dispatch.barrier = scratch && (shared_scratch || (single_scratch && !dispatch.single_lane));
    for (const Touch& a : now) {
      for (const Touch& b : since) dispatch.barrier = dispatch.barrier || conflict(a, b);
    }
    if (dispatch.barrier) {
      since.clear();
      shared_scratch = single_scratch = false;
    }
    (dispatch.single_lane ? single_scratch : shared_scratch) |= scratch;
    since.insert(since.end(), now.begin(), now.end());
    schedule.dispatches.push_back(dispatch);
    // One lane that runs alone may need more or less scratch memory than each of many lanes.
    for (const OpWork& work : {all, one}) {
      schedule.scratch.per_lane = std::max(schedule.scratch.per_lane, work.scratch.per_lane);
      schedule.scratch.shared = std::max(schedule.scratch.shared, work.scratch.shared);
    }
    if (instruction.when != When::kUnbounded && !dispatch.single_lane && !op.every_lane) schedule.shared_out = true;
  }
  return schedule;
}

}  // namespace gradring
