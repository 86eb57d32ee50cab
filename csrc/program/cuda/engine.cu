#include <algorithm>
#include <utility>

#include "cuda/device.h"
#include "program/cuda/engine.h"
#include "runtime/forks.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr const char* kWho = "engine";

}  // namespace

DeviceEngine::DeviceEngine(Arenas arenas, const EngineOptions& options, const DeviceOptions& device)
    : options_(options),
      device_(device),
      team_(options.lanes),
      arenas_(std::move(arenas)),
      born_in_fork_(forks_so_far()) {
  const cuda::OnDevice on(kWho, device_.device);
  ledger_memory_ = cuda::DeviceMemory(kWho, sizeof(DeviceLedger), device_.lender);
  report_ = cuda::make_pinned(kWho, sizeof(DeviceLedger));
  compute_ = cuda::make_stream(kWho);
  copies_ = cuda::make_stream(kWho, cuda::Priority::kHigh);
  losses_ = cuda::make_pinned(kWho, DeviceLedger::kLosses * sizeof(StepLoss));
  entry_ = cuda::make_event(kWho), exit_ = cuda::make_event(kWho), reported_ = cuda::make_event(kWho);
  for (Slot& slot : slots_) slot.copied = cuda::make_event(kWho);
  for (Lap& lap : laps_) lap.began = cuda::make_clock(kWho), lap.ended = cuda::make_clock(kWho);
}

DeviceEngine::~DeviceEngine() {
  // Steps that nothing has read still use the memory. A forked child has no steps.
  if (!is_settled() && born_in_fork_ == forks_so_far()) {
    try {
      settle();
    } catch (const Error&) {  // nothing can take it here
    }
  }
}

CudaQueue DeviceEngine::queue() const noexcept {
  return {compute_.get(), device_.processors, scratch_.data(), device_.products};
}

void DeviceEngine::forget_graphs() noexcept {
  for (const Known& known : known_) known.executor->forget_graphs();
}

void DeviceEngine::forget_rehearsals() {
  settle();
  for (const Known& known : known_) known.executor->forget_rehearsals();
}

// Allocates memory for an arena of temps. Programs that used a smaller one now use this one.
void DeviceEngine::reserve(const Arena& temps) {
  const Arenas::Memory* const known = arenas_.find(temps.name);
  if (temps.bytes < 0 || (known != nullptr && (known->kind != BufferKind::kTemp || known->bytes >= temps.bytes)))
    return;
  const auto memory = std::make_shared<cuda::DeviceMemory>(kWho, static_cast<size_t>(std::max<int64_t>(temps.bytes, 1)),
                                                           device_.lender);
  auto* const data = static_cast<std::byte*>(memory->data());
  arenas_.set(temps.name, BufferKind::kTemp, data, temps.bytes, memory);
  for (const Known& each : known_) each.executor->place_temps(temps.name, data);
}

void DeviceEngine::grow_slots(size_t bytes) {
  if (bytes <= slot_bytes_) return;
  cuda::DeviceMemory memory(kWho, bytes * kSlots, device_.lender);
  cuda::PinnedMemory host = cuda::make_pinned(kWho, bytes * kSlots);
  slot_memory_ = std::move(memory), host_slots_ = std::move(host);
  slot_bytes_ = bytes;
  for (size_t i = 0; i < kSlots; ++i) {
    slots_[i].device = static_cast<std::byte*>(slot_memory_.data()) + i * bytes;
    slots_[i].host = static_cast<std::byte*>(host_slots_.get()) + i * bytes;
  }
  forget_graphs();
}

void DeviceEngine::grow_rates(int64_t columns) {
  if (columns <= most_rates_) return;
  size_t most = 0;
  for (const Known& each : known_) {
    SlotLayout layout = each.executor->layout();
    layout.arrange(columns);
    most = std::max(most, layout.bytes);
  }
  grow_slots(most);
  most_rates_ = columns;
  for (const Known& each : known_) each.executor->arrange(columns);
}

void DeviceEngine::grow_scratch(size_t bytes) {
  if (bytes <= scratch_.bytes()) return;
  scratch_ = cuda::DeviceMemory(kWho, bytes, device_.lender);
  forget_graphs();
}

DeviceExecutor& DeviceEngine::add(Mode mode, int64_t rows, const Program& program) {
  if (program.fields < 0 || program.fields > Batch::kMaxFields) {
    throw Error(Code::kInvalidArgument, "[program] the batch has " + std::to_string(program.fields) +
                                            " fields: must be at most " + std::to_string(Batch::kMaxFields));
  }
  const int most = mode == Mode::kPredict ? 1 : 0;  // only predict has an output
  if (program.outputs < 0 || program.outputs > most) {
    throw Error(Code::kInvalidArgument, "[program] has " + std::to_string(program.outputs) +
                                            " outputs: must be at most " + std::to_string(most) + " in this mode");
  }
  settle();
  const cuda::OnDevice on(kWho, device_.device);
  for (const Arena& arena : program.arenas)
    if (arena.kind == BufferKind::kTemp) reserve(arena);
  const SlotLayout layout(program, rows, most_rates_);
  grow_slots(layout.bytes);
  auto* const ledger = static_cast<DeviceLedger*>(ledger_memory_.data());
  auto executor = std::make_unique<DeviceExecutor>(program, rows, layout, arenas_, ledger, slots_[0].device,
                                                   device_.device, queue(), device_.lender);
  grow_scratch(executor->scratch_bytes());
  known_.push_back({mode, rows, std::move(executor)});
  return *known_.back().executor;
}

DeviceExecutor* DeviceEngine::find(Mode mode, int64_t rows) const noexcept {
  for (const Known& each : known_)
    if (each.mode == mode && each.rows == rows) return each.executor.get();
  return nullptr;
}

void DeviceEngine::clear() {
  settle();
  known_.clear();
}

void DeviceEngine::set_arenas(Arenas arenas) {
  clear();
  arenas_ = std::move(arenas);
}

Engine::Entry DeviceEngine::enter(bool) noexcept {
  // A forked child cannot use CUDA, even if its parent used it.
  if (born_in_fork_ != forks_so_far()) return Engine::Entry::kForked;
  return busy_.exchange(true, std::memory_order_acquire) ? Engine::Entry::kBusy : Engine::Entry::kEntered;
}

}  // namespace gradring
