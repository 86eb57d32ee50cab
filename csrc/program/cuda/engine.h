// DeviceEngine: the programs and counts of one model on a CUDA device, with the names of Engine (program/engine.h). It queues
// steps ahead of the device, and learns of losses, counts and faults when it reads the ledger: at the end of each chunk.
//
// A batch goes through a slot: the host writes it into pinned memory, a copy on a stream of its own brings it to the device, and
// the step waits for that copy. With two slots, the copy of a batch runs beside the step before it. The host waits by asking
// events, with sleeps in between; it never synchronizes with a stream or the device, and allocates nothing between two programs.
//
// | variable | writer            | readers | order              | why                                      |
// |----------|-------------------|---------|--------------------|------------------------------------------|
// | busy_    | who uses it       | same    | exchange acq, rel  | one thread at a time; others get an error|
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda/memory.h"
#include "cuda/stream.h"
#include "program/cuda/executor.h"
#include "program/cuda/ledger.h"
#include "program/engine.h"

namespace gradring {

struct DeviceOptions {
  int device = 0;
  bool graphs = true;  // false: each step is queued launch by launch
  const CudaProducts* products = nullptr;
  int processors = 1;
};

class DeviceEngine {
 public:
  // arenas: device memory of parameters, gradients and state; the engine adds temps. It needs no more than it was given
  // until a program is added. Throws Error.
  DeviceEngine(Arenas arenas, const EngineOptions& options, const DeviceOptions& device);
  ~DeviceEngine();
  DeviceEngine(const DeviceEngine&) = delete;
  DeviceEngine& operator=(const DeviceEngine&) = delete;

  Team& team() noexcept { return team_; }
  const EngineOptions& options() const noexcept { return options_; }
  void set_seed(uint64_t seed) noexcept { options_.seed = seed; }
  TrainState& state() noexcept { return state_; }
  Totals& totals() noexcept { return totals_; }
  void set_arenas(Arenas arenas);

  // Adds a program. There is one for each mode and number of rows. Throws Error; then the engine is as before.
  DeviceExecutor& add(Mode mode, int64_t rows, const Program& program);
  DeviceExecutor* find(Mode mode, int64_t rows) const noexcept;
  void clear() noexcept;
  void forget_graphs() noexcept;
  // Must be called if the products will use other algorithms than before.
  void forget_rehearsals() noexcept;

  // These are as in Engine, but throw Error if a CUDA call fails. Counts and parameters are then those of the last whole step.
  // `caller` is the caller's current stream, a cudaStream_t: work that is queued there before comes first, and work that is
  // queued there afterwards comes later. null: the legacy default stream.
  ChunkResult chunk(bool train, Feed& feed, const ChunkOptions& options, Totals* totals, void* caller);
  ChunkResult flush(bool weighted, int64_t rows, const ChunkOptions& options, void* caller);
  ChunkResult predict(Feed& feed, std::byte* out, int64_t row_bytes, void* caller);
  ChunkOptions chunk_options() const noexcept;

  Engine::Entry enter(bool writes) noexcept;
  void leave() noexcept { busy_.store(false, std::memory_order_release); }

  static constexpr int kSlots = 2;

 private:
  struct Slot {
    std::byte* device = nullptr;
    std::byte* host = nullptr;  // pinned; the parts lie as on the device
    cuda::Event copied, consumed;
    // Of a prediction: where the output goes that comes into `host`.
    std::byte* out = nullptr;
    const std::byte* from = nullptr;
    size_t out_bytes = 0;
  };
  struct Known {
    Mode mode;
    int64_t rows;
    std::unique_ptr<DeviceExecutor> executor;
  };

  void reserve(const Arena& temps);
  void grow_slots(size_t bytes);
  void grow_rates(int64_t columns);
  void grow_scratch(size_t bytes);
  CudaQueue queue() const noexcept;

  template <class Body>
  ChunkResult run(const ChunkOptions& options, Totals* totals, void* caller, Body&& body);
  void begin(const ChunkOptions& options, const Totals& totals, void* caller);
  void collect(Totals* totals, ChunkResult* result, bool train);
  void end(void* caller);
  void keep_near(int64_t step, Clock::time_point start);
  void fill(const Batch& batch, BatchSource* source, const DeviceExecutor& executor, const Slot& slot);
  void queue_step(DeviceExecutor& executor, const Slot& slot, uint8_t moment, StepKind kind,
                  const Batch* on_device = nullptr);
  void deliver(Slot* slot);

  EngineOptions options_;
  DeviceOptions device_;
  Team team_;
  Arenas arenas_;
  TrainState state_;
  Totals totals_;
  std::string lost_;  // why the device's counts are not known; empty: they are
  int64_t most_rates_ = 1;

  // The order matters: streams are destroyed before the memory that they use is freed.
  cuda::DeviceMemory ledger_memory_, slot_memory_, scratch_;
  cuda::PinnedMemory report_, host_slots_;
  size_t slot_bytes_ = 0;
  cuda::Stream compute_, copies_;
  cuda::Event entry_, exit_, reported_;
  Slot slots_[kSlots];
  std::vector<Known> known_;
  std::atomic<bool> busy_{false};
  uint64_t born_in_fork_;
};

}  // namespace gradring
