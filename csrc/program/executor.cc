#include "program/executor.h"

#include <utility>

#include "runtime/ticks.h"

namespace gradring {

Executor::Executor(Program program, const Arenas& arenas, Team& team)
    : program_(std::move(program)), pointers_(program_.buffers.size(), nullptr) {
  validate(program_, arenas.bytes);
  place_barriers(&program_, team.lanes());
  ScratchBytes most;
  for (const Instruction& instruction : program_.instructions) {
    const OpEntry& op = *instruction.op;
    const Routine routine = program_.dtype == Dtype::kFloat32 ? op.run_float : op.run_double;
    code_.push_back({routine, &instruction, instruction.barrier, op.phase == Phase::kUpdate, instruction.solo,
                     static_cast<uint8_t>(instruction.when), false});
    if (op.scratch == nullptr) continue;
    // One lane alone may want another amount than each of many.
    for (const int lanes : {1, team.lanes()}) {
      const ScratchBytes scratch = op.scratch(instruction, program_.dtype, lanes);
      if (scratch.per_lane > most.per_lane) most.per_lane = scratch.per_lane;
      if (scratch.shared > most.shared) most.shared = scratch.shared;
    }
  }
  for (auto code = code_.rbegin(); code != code_.rend(); ++code) {
    if (code->instruction->when != When::kUnbounded) break;
    code->tail = true;
  }
  bool shared_out = false;
  for (const Code& code : code_) {
    const bool rare = code.instruction->when == When::kUnbounded;
    shared_out = shared_out || !(rare || code.solo || code.instruction->op->scalar);
  }
  trial_ = LaneTrial(shared_out ? team.lanes() : 1);
  team.reserve(most.per_lane, most.shared);
  for (size_t i = 0; i < program_.buffers.size(); ++i) {
    if (program_.buffers[i].kind == BufferKind::kInput) inputs_.push_back(i);
  }
  place(arenas);
}

void Executor::place(const Arenas& arenas) noexcept {
  for (size_t i = 0; i < program_.buffers.size(); ++i) {
    const Buffer& buffer = program_.buffers[i];
    if (has_arena(buffer.kind)) pointers_[i] = arenas.data[static_cast<size_t>(buffer.kind)] + buffer.offset;
  }
}

void Executor::bind(const Batch& batch) noexcept {
  // The kernels only read their inputs: validate has seen to it.
  for (const size_t i : inputs_) pointers_[i] = const_cast<void*>(batch.fields[program_.buffers[i].offset]);
}

void Executor::bind_output(void* memory) noexcept {
  for (size_t i = 0; i < program_.buffers.size(); ++i) {
    if (program_.buffers[i].kind == BufferKind::kOutput) pointers_[i] = memory;
  }
}

inline void Executor::call(const Code& code, const Lane& lane, Frame* frame) noexcept {
  if (!code.solo) return code.routine(lane, *code.instruction, *frame);
  if (lane.index == 0) code.routine(Lane{lane.team, 0, 1}, *code.instruction, *frame);
}

void Executor::run(const Lane& lane, Frame* frame, StepTicks* account) const noexcept {
  frame->buffers = pointers_.data();
  if (spans_ != nullptr) return run_watched(lane, frame);
  uint64_t since = account != nullptr ? ticks() : 0;
  bool update = false;
  for (const Code& code : code_) {
    const bool runs = (code.when & frame->moment) != 0;
    if (!runs && code.tail) break;
    // A barrier also orders what comes later, so it is kept where its instruction is left out.
    if (code.barrier) lane.barrier();
    if (!runs) continue;
    if (account != nullptr && code.update != update) {
      const uint64_t now = ticks();
      (update ? account->update : account->compute) += now - since;
      since = now;
      update = code.update;
    }
    call(code, lane, frame);
    if (frame->step.fault != Fault::kNone) break;
  }
  if (account != nullptr) (update ? account->update : account->compute) += ticks() - since;
}

void Executor::run_watched(const Lane& lane, Frame* frame) const noexcept {
  Span* span = spans_ + static_cast<size_t>(lane.index) * code_.size();
  for (const Code& code : code_) {
    span->ready = ticks();
    if (code.barrier) lane.barrier();
    span->begin = ticks();
    if ((code.when & frame->moment) != 0) call(code, lane, frame);
    (span++)->end = ticks();
    if (frame->step.fault != Fault::kNone) break;
  }
}

void Executor::run_updates(const Lane& lane, Frame* frame) const noexcept {
  frame->buffers = pointers_.data();
  for (const Code& code : code_) {
    if (code.when != static_cast<uint8_t>(When::kLast)) continue;
    if (code.barrier) lane.barrier();
    call(code, lane, frame);
    if (frame->step.fault != Fault::kNone) return;
  }
}

}  // namespace gradring
