// Executor: runs one program, lane by lane, as often as asked. It allocates when it is made and never again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "gradring/export.h"
#include "program/lane_trial.h"
#include "program/op_table.h"
#include "program/program.h"
#include "runtime/batch_source.h"
#include "runtime/team.h"

namespace gradring {

// Where the buffers of each kind lie.
struct Arenas {
  std::array<std::byte*, kBufferKinds> data{};
  std::array<int64_t, kBufferKinds> bytes{};  // of kinds without an arena: the number of fields

  void set(BufferKind kind, std::byte* memory, int64_t size) noexcept {
    data[static_cast<size_t>(kind)] = memory;
    bytes[static_cast<size_t>(kind)] = size;
  }
};

// What lane 0 found a step's parts to take, in ticks.
struct StepTicks {
  uint64_t compute = 0;
  uint64_t update = 0;
};

// When a lane came to an instruction, began it (a barrier may lie between) and ended it, in ticks.
struct Span {
  uint64_t ready = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

class GRADRING_API Executor {
 public:
  // Validates, places the barriers, and reserves the team's scratch. Throws Error.
  Executor(Program program, const Arenas& arenas, Team& team);

  const Program& program() const noexcept { return program_; }
  int64_t rows() const noexcept { return rows_; }  // of the batches it is for
  void set_rows(int64_t rows) noexcept { rows_ = rows; }

  // What the next run should use: what was set, or the trial's choice, or what the trial wants to try.
  int lanes() const noexcept { return lanes_ > 0 ? lanes_ : trial_.lanes(); }
  int set_lanes(int lanes) noexcept { return std::exchange(lanes_, lanes); }  // 0: leave it to the trial
  bool on_trial() const noexcept { return lanes_ == 0 && !trial_.done(); }
  void note(uint64_t took) noexcept { trial_.note(took); }  // of a run on lanes()

  // Runs for so few microseconds that handing over Python's lock would cost more than it gives.
  bool brief() const noexcept { return brief_; }
  void set_brief(bool brief) noexcept { brief_ = brief; }

  // Lane 0, before the others may look (a barrier or the start of a run lies between).
  void bind(const Batch& batch) noexcept;
  void bind_output(void* memory) noexcept;
  // After an arena has moved.
  void place(const Arenas& arenas) noexcept;

  // One step, called by every lane with equal frames: the instructions of frame->moment. Returns early, on every lane,
  // when frame->step.fault is set. The end is not a barrier. account: lane 0's, null on the others.
  void run(const Lane& lane, Frame* frame, StepTicks* account) const noexcept;
  // The instructions of an update's last micro-batch alone, for gradients that were accumulated before.
  void run_updates(const Lane& lane, Frame* frame) const noexcept;

  // From now on every lane notes its spans: instruction i of lane l at l * instructions + i. Null: no more.
  void watch(Span* spans) noexcept { spans_ = spans; }

 private:
  struct Code {
    Routine routine;
    const Instruction* instruction;
    bool barrier;
    bool update;
    bool solo;
    uint8_t when;
    bool tail;  // this and all that follow run on the unbounded route alone
  };

  static void call(const Code& code, const Lane& lane, Frame* frame) noexcept;
  void run_watched(const Lane& lane, Frame* frame) const noexcept;

  Program program_;
  std::vector<Code> code_;
  std::vector<void*> pointers_;
  std::vector<size_t> inputs_;  // buffers that are fields of the batch
  int64_t rows_ = 0;
  int lanes_ = 0;  // if set
  LaneTrial trial_;
  bool brief_ = false;
  Span* spans_ = nullptr;
};

}  // namespace gradring
