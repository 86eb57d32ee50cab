// Executor: runs one program on a team of CPU threads, as often as asked. Its constructor prepares the call of every instruction
// for every lane; it allocates nothing afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gradring/export.h"
#include "program/cpu/schedule.h"
#include "program/lane_trial.h"
#include "program/program.h"
#include "runtime/batch_source.h"
#include "runtime/team.h"

namespace gradring {

// The memory of arenas, by their names.
class GRADRING_API Arenas {
 public:
  struct Memory {
    std::string name;
    BufferKind kind;
    std::byte* data;
    int64_t bytes;
    std::shared_ptr<const void> owner;  // keeps the memory alive; null if the caller does
  };

  // Adds memory, or replaces the memory of the same name.
  void set(const std::string& name, BufferKind kind, std::byte* data, int64_t bytes,
           std::shared_ptr<const void> owner = nullptr);
  // The memory for an arena of a program. Throws Error unless it is of the arena's kind, and large enough.
  const Memory& at(const Arena& arena) const;
  const Memory* find(const std::string& name) const noexcept;  // null if there is none

 private:
  std::vector<Memory> all_;
};

// How long the parts of a step took, in ticks, as lane 0 measured them.
enum class StepPart : uint8_t { kCompute, kUpdate, kReduction };  // kReduction: replicas meet, and sum their gradients

struct StepTicks {
  uint64_t of[3] = {};

  uint64_t& operator[](StepPart part) noexcept { return of[static_cast<size_t>(part)]; }
};

class Executor {
 public:
  // Validates, makes the schedule, and reserves the team's scratch. Throws Error. Two arenas of one program must not share
  // memory, as the schedule counts them as apart.
  Executor(const Program& program, const Arenas& arenas, Team& team);
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  size_t size() const noexcept { return code_.size(); }  // instructions
  bool barrier_before(size_t instruction) const noexcept { return code_[instruction].barrier; }
  int64_t rows() const noexcept { return rows_; }  // rows of the batches that the program is for
  void set_rows(int64_t rows) noexcept { rows_ = rows; }

  // How many lanes the next run should use: the number that set_lanes has set, or else the one that the trial wants.
  int lanes() const noexcept { return lanes_ > 0 ? lanes_ : trial_.lanes(); }
  int set_lanes(int lanes) noexcept { return std::exchange(lanes_, lanes); }  // 0: the trial decides
  bool on_trial() const noexcept { return lanes_ == 0 && !trial_.done(); }
  void note(uint64_t took) noexcept { trial_.note(took); }  // reports the time of a run on lanes()

  // Whether the program takes so few microseconds that it is not worth releasing the GIL.
  bool keeps_gil() const noexcept { return keeps_gil_; }

  // Sets the addresses of a batch. Lane 0 calls it. A barrier, or a run's start, must follow before other lanes run.
  void bind(const Batch& batch) noexcept;
  void bind_output(void* memory) noexcept;
  // Sets the addresses of temps after their arena has moved.
  void place_temps(const std::string& name, std::byte* memory) noexcept;

  // Runs the instructions for given.moment, which says which micro-batch of an update this is (When, in ops/op.h). Every
  // lane calls it with an equal record. It returns the lane's record; if a fault is set there, every lane returns early.
  // There is no barrier at the end. `account` is null on lanes other than 0.
  const StepRecord& run(const Lane& lane, const StepRecord& given, StepTicks* account) noexcept;

  // Whether runs from now on record each instruction and each barrier as spans of the trace (runtime/trace.h).
  void trace(bool on);

 private:
  struct Code {
    OpRun run;
    const OpCall* calls;
    int lane_mask;  // -1: a call per lane, because it holds the lane's step record; 0: one for all
    uint8_t when;
    bool barrier;
    StepPart part;  // the part of a step to which its time is added
    bool single_lane;
    bool tail;   // this instruction and all later ones run on the unbounded route alone
    bool meets;  // it meets other ranks
  };
  struct alignas(64) LaneRecord {
    StepRecord step;
  };
  struct Binding {
    Tensor* tensor;
    int64_t number;  // the number of the batch's field, or of a temp's arena
    int64_t offset;  // bytes
  };

  using Starts = std::vector<std::byte*>;  // where the program's arenas begin

  void make_calls(const Program& program, const Starts& arenas);
  Tensor* add_call(const Program& program, const Starts& arenas, const Instruction& instruction, int lane, Tensor* at);
  void* bound(const Buffer& buffer, const Starts& arenas, int64_t offset, Tensor* tensor);
  static void call(const Code& code, const Lane& lane) noexcept;
  void end_by_fault(const Lane& lane, const Code& at, const StepRecord& step) const noexcept;
  void run_traced(const Lane& lane, StepRecord* step, StepTicks* account) noexcept;

  std::vector<Code> code_;
  std::vector<OpCall> calls_;
  std::vector<Tensor> tensors_;
  std::vector<AttributeValue> attributes_;
  std::vector<int64_t> extents_;  // shapes and strides
  std::vector<Binding> inputs_, outputs_, temps_;
  std::vector<std::string> temp_arenas_;
  std::vector<std::shared_ptr<Resource>> resources_;
  std::string constants_;  // what the buffers of kind kConst hold
  std::vector<Resource*> resource_table_;
  std::vector<LaneRecord> records_;
  int64_t rows_ = 0;
  int lanes_ = 0;  // the number that set_lanes has set, or 0
  LaneTrial trial_;
  bool keeps_gil_ = false;
  bool meets_ = false;  // whether some instruction meets other ranks
  bool traced_ = false;
  std::vector<std::string> labels_;  // the names of the instructions
  std::vector<const char*> names_;   // the same for the trace, made when tracing starts
};

}  // namespace gradring
