// DeviceExecutor: queues one program on a CUDA stream, as often as asked: by launches, or as a graph that was captured from them.
// Its constructor prepares the call of every instruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/memory.h"
#include "cuda/stream.h"
#include "ops/cuda_run.h"
#include "program/cpu/executor.h"
#include "program/cuda/ledger.h"
#include "program/cuda/plant.h"
#include "program/program.h"
#include "runtime/trace.h"

namespace gradring {

// Where the parts of a batch lie in a slot: header, learning rates, the samples' numbers, the fields, and then the program's
// output. One copy brings all but the output to the device.
struct SlotLayout {
  SlotLayout() = default;
  SlotLayout(const Program& program, int64_t rows, int64_t most_rates);

  void arrange(int64_t most_rates) noexcept;  // makes room for so many learning rates
  SlotPlaces places(const std::byte* slot) const noexcept;
  void set_rates(std::byte* slot, const double* given, int64_t count) const noexcept;  // in a slot of the host

  static constexpr size_t kAlignment = 256;
  int64_t rows = 0;
  size_t rates = 0, samples = 0;
  std::vector<size_t> fields;       // the begin of each field; the program may not read all of them
  std::vector<size_t> field_bytes;  // 0: the program does not read it
  size_t input_bytes = 0;           // the end of the fields
  size_t output = 0, output_bytes = 0;
  size_t bytes = 0;
};

// When the device did each instruction of one step, for the trace.
struct StepMarks {
  std::vector<cuda::Event> clocks;  // before the first instruction, and behind each one that runs
  uint8_t moment = 0;
};

class DeviceExecutor {
 public:
  // Validates, and checks that all operands lie in the device's memory. `slot` is the memory of a slot, which is used for
  // these checks alone. Throws Error.
  DeviceExecutor(const Program& program, int64_t rows, const SlotLayout& layout, const Arenas& arenas,
                 DeviceLedger* ledger, std::byte* slot, int device, const CudaQueue& queue, const cuda::Lender& lender);
  DeviceExecutor(const DeviceExecutor&) = delete;
  DeviceExecutor& operator=(const DeviceExecutor&) = delete;

  int64_t rows() const noexcept { return rows_; }
  const SlotLayout& layout() const noexcept { return layout_; }
  size_t size() const noexcept { return code_.size(); }  // instructions
  size_t scratch_bytes() const noexcept { return scratch_bytes_; }
  size_t graphs() const noexcept { return graphs_.size(); }
  // How long the device took for the last step of this program that is known to be done; negative: none is.
  double seconds() const noexcept { return seconds_; }
  void set_seconds(double seconds) noexcept { seconds_ = seconds; }

  // Sets the addresses of temps after their arena has moved, and forgets the graphs.
  void place_temps(const std::string& name, std::byte* memory);
  // Call this if the slots or the scratch memory have moved.
  void forget_graphs() noexcept {
    if (!planted(Plant::kGraphOfFreedMemory)) graphs_.clear();
  }
  // Call this if the products use other algorithms: each runs once more before it is captured.
  void forget_rehearsals() noexcept {
    graphs_.clear();
    rehearsed_.clear();
  }
  void arrange(int64_t most_rates) noexcept;

  // Queues a step on the batch in a slot. Throws Error that names op and call; then some of the instructions may be queued.
  void queue(std::byte* slot, uint8_t moment, StepKind kind, const CudaQueue& queue);
  // Does the same, with clocks between the instructions.
  void queue_marked(std::byte* slot, uint8_t moment, StepKind kind, const CudaQueue& queue, StepMarks* marks);
  // Records the spans of such a step, which is done, in a row of the trace. `base` is an event that was done at `base_ns`.
  int show(const StepMarks& marks, const cuda::Event& base, int64_t base_ns, TraceRow* row) const;
  // Queues the same step as one graph. The first call runs all instructions once, without an effect, and captures the graph.
  // If it throws Error, nothing is queued that changes anything.
  void launch(std::byte* slot, uint8_t moment, StepKind kind, const CudaQueue& queue);

 private:
  struct Code {
    CudaRun run;
    OpCall call;
    uint8_t when;
  };
  struct Binding {
    size_t tensor;
    int64_t number;  // the number of the batch's field, or of a temp's arena
    int64_t offset;  // bytes
  };
  using Key = std::tuple<const std::byte*, uint8_t, StepKind>;

  void make_calls(const Program& program, const Arenas& arenas, int device, std::byte* slot);
  void* bound(const Program& program, const Argument& argument, const std::vector<std::byte*>& starts, size_t tensor);
  void bind(std::byte* slot) noexcept;
  int queue_instructions(uint8_t moment, const CudaQueue& queue, const char** failed,
                         StepMarks* marks = nullptr) noexcept;

  int64_t rows_;
  SlotLayout layout_;
  DeviceLedger* ledger_;
  size_t scratch_bytes_ = 0;
  double seconds_ = -1;
  std::vector<Code> code_;
  std::vector<Tensor> tensors_;
  std::vector<AttributeValue> attributes_;
  std::vector<int64_t> extents_;  // shapes and strides
  std::vector<Binding> inputs_, outputs_, temps_;
  std::vector<std::string> arena_names_;
  std::vector<const char*> names_;  // of the instructions
  cuda::DeviceMemory constants_;
  std::map<uint8_t, bool> rehearsed_;
  std::map<Key, cuda::Graph> graphs_;
};

}  // namespace gradring
