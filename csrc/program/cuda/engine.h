// DeviceEngine: the programs and counts of one model on a CUDA device, with the names of Engine (program/engine.h). It queues
// steps ahead of the device, and learns of losses, counts and faults when it reads the ledger: at the end of each run. A run is a
// chunk, a flush, a prediction, or the steps that `step` queues until something else needs what they leave behind.
//
// A batch goes through a slot: the host writes it into pinned memory, a copy on a stream of its own brings it to the device, and
// the step waits for that copy. With two slots, the copy of a batch runs beside the step before it. The host waits by asking
// events, with sleeps in between; it never synchronizes with a stream or the device, and allocates nothing between two programs.
// The same events are clocks, by which the host knows how long each step takes.
//
// | variable | writer            | readers | order              | why                                      |
// |----------|-------------------|---------|--------------------|------------------------------------------|
// | busy_    | who uses it       | same    | exchange acq, rel  | one thread at a time; others get an error|
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
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
  cuda::Lender lender = nullptr;  // of the memory that the engine adds to its arenas
};

// A step of DeviceEngine::step that has failed.
struct FailedStep {
  int64_t number = 0;
  ChunkResult result;
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
  void clear();
  // Must be called if the products will use other algorithms than before.
  void forget_rehearsals();

  // These are as in Engine, but throw Error if a CUDA call fails. Counts and parameters are then those of the last whole step.
  // `caller` is the caller's current stream, a cudaStream_t: work that is queued there before comes first, and work that is
  // queued there afterwards comes later. null: the legacy default stream.
  ChunkResult chunk(bool train, Feed& feed, const ChunkOptions& options, Totals* totals, void* caller);
  ChunkResult flush(bool weighted, int64_t rows, const ChunkOptions& options, void* caller);
  ChunkResult predict(Feed& feed, std::byte* out, int64_t row_bytes, void* caller);
  ChunkOptions chunk_options() const noexcept;

  // Steps that return before the device is done. They are numbered from 0 on; no number comes again.

  // Queues a training step on the feed's next batch, which the caller may change afterwards if it lies on the host. The result's
  // end is kSteps if the step is queued: it is number queued() - 1. If one before it has failed, nothing is queued, the result
  // has a fault, and failure() says more. Parameters and counts are then those before the step that has failed. Throws
  // Error, also for what an earlier step has left behind.
  ChunkResult step(Feed& feed, const ChunkOptions& options, void* caller);
  int64_t queued() const noexcept { return queued_; }
  // How many updates there are when all queued steps are done.
  int64_t queued_updates() const noexcept { return ahead_ ? ahead_->updates : state_.updates; }
  // Waits until step number `last` is done, if it has been queued; -1 waits for none. Throws Error.
  void await(int64_t last);
  // The losses of steps that are known to be done, from number first_loss() on, after those before step `since` were dropped.
  const std::vector<double>& losses(int64_t since);
  int64_t first_loss() const noexcept { return first_loss_; }
  // The step that has failed, until it is forgotten; that also drops the losses.
  const std::optional<FailedStep>& failure() const noexcept { return failed_; }
  void forget_failure() noexcept;
  // Waits until all steps are done. Counts are then those of the last whole step. Everything above calls it first. Throws Error.
  void settle();
  bool is_settled() const noexcept { return !ahead_; }
  // Work that comes to a stream afterwards waits for the steps that are queued; the host does not.
  void order_behind_steps(void* stream);

  // Whether steps from now on are in the trace, with the device's times of each instruction, in a row of their own. Such steps are
  // queued launch by launch, because no event tells when a node of a graph has ended. Throws Error.
  void trace(bool on);

  Engine::Entry enter(bool writes) noexcept;
  void leave() noexcept { busy_.store(false, std::memory_order_release); }

  static constexpr int kSlots = 2;

 private:
  struct Slot {
    std::byte* device = nullptr;
    std::byte* host = nullptr;  // pinned; the parts lie as on the device
    cuda::Event copied;
    // Of a prediction: where the output goes that comes into `host`.
    std::byte* out = nullptr;
    const std::byte* from = nullptr;
    size_t out_bytes = 0;
  };
  // When the device began and ended a step. The end also says that its slot is free.
  struct Lap {
    cuda::Event began, ended;
    DeviceExecutor* executor = nullptr;
    const char* shown = nullptr;  // its name in the trace; null: it is not there
    StepMarks marks;
  };
  static constexpr int kLaps = 2 * kSlots;  // more steps never wait on the device
  // A run of `step`.
  struct Ahead {
    ChunkOptions options;
    int64_t first = 0;                 // the number of its first step
    int64_t heard = 0;                 // how many of its steps are known to have ended well
    int64_t updates = 0, pending = 0;  // when all its steps are done
    double data_seconds = 0;
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
  void order_behind(void* caller, bool copies);
  void begin(const ChunkOptions& options, const Totals& totals, StepLoss* losses, void* caller);
  void collect(Totals* totals, ChunkResult* result, bool train);
  void end(void* caller);
  Lap& lap(int64_t step) noexcept { return laps_[step % kLaps]; }
  void read_laps(int64_t done);
  void keep_near(const DeviceExecutor& executor);
  void require_known() const;
  void lose(const Error& error);
  int show(const Lap& done);
  void listen(int64_t done);
  void queue_ahead(DeviceExecutor& executor, Feed& feed, Clock::time_point since);
  void fill(const Batch& batch, BatchSource* source, const DeviceExecutor& executor, const Slot& slot);
  void queue_step(DeviceExecutor& executor, const Slot& slot, uint8_t moment, StepKind kind, const Batch* on_device,
                  size_t result_bytes = 0);
  void deliver(Slot* slot, const cuda::Event& come);
  void forget_graphs() noexcept;

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
  cuda::PinnedMemory report_, losses_, host_slots_;
  size_t slot_bytes_ = 0;
  cuda::Stream compute_, copies_;
  cuda::Event entry_, exit_, reported_;
  Slot slots_[kSlots];
  std::vector<Known> known_;
  Lap laps_[kLaps];
  // Of the current run: how many steps are queued, of how many of them the time is known, and the sum of these times.
  int64_t run_steps_ = 0, laps_read_ = 0;
  double lap_seconds_ = 0, last_lap_ = 0;
  std::unique_ptr<TraceRow> row_;  // while steps are in the trace
  cuda::Event base_;               // it was done at base_ns_, by the host's clock
  int64_t base_ns_ = 0;
  std::optional<Ahead> ahead_;
  int64_t queued_ = 0, first_loss_ = 0;
  std::vector<double> heard_losses_;
  std::optional<FailedStep> failed_;
  std::atomic<bool> busy_{false};
  uint64_t born_in_fork_;
};

}  // namespace gradring
