#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "cuda/device.h"
#include "cuda/device_feed.h"
#include "cuda/failure.h"
#include "cuda/feed_plant.h"
#include "runtime/clock.h"
#include "runtime/lane.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring::cuda {

namespace {

constexpr const char* kWho = "loader";
constexpr size_t kAlignment = 64;                      // as the loader's slots, so that one copy brings all fields
constexpr size_t kMostCopies = 2;                      // a source's next batch may be filled beside one that is copied
constexpr auto kPatience = std::chrono::seconds(10);   // a device that has not ended a copy by then never will
constexpr auto kSlice = std::chrono::milliseconds(1);  // between two looks whether a capture has ended

Status failure(int code, const std::string& of = "") {
  const std::string text = of + describe_failure(code);
  return {code == cudaErrorMemoryAllocation ? Code::kOutOfMemory : Code::kUnavailable, "[%s] %s", kWho, text.c_str()};
}

}  // namespace

// The batches whose host memory is still being copied. It outlives the feed if the device never answers.
struct DeviceFeed::Shared {
  std::mutex mutex;  // never held while CUDA is called, because a host function waits for it
  std::vector<Copy*> open;
};

struct DeviceFeed::Copy {
  std::shared_ptr<Shared> shared;
  BatchSource* source;
  Batch batch;

  // Releases the batch, unless an earlier call has. It holds the lock all the time, so that end(), after which the source may be
  // destroyed, cannot return in between.
  void give_back() noexcept {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    if (std::erase(shared->open, this) != 0) source->release(batch);
  }
  // The feed keeps the batch, because the copy could not be queued.
  void forget() noexcept {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    std::erase(shared->open, this);
  }
  static void done(void* self) noexcept {
    const std::unique_ptr<Copy> copy(static_cast<Copy*>(self));
    copy->give_back();
  }
};

DeviceFeed::DeviceFeed(BatchSource& source, std::vector<size_t> row_bytes, int64_t batch_size, const Options& options)
    : source_(source), options_(options), row_bytes_(std::move(row_bytes)), shared_(std::make_shared<Shared>()) {
  if (options.slots < 1 || batch_size < 1 || row_bytes_.size() > Batch::kMaxFields) {
    throw Error(Code::kInvalidArgument, "[loader] a device's batch has from 1 row on and at most 8 fields");
  }
  options_.most = std::max(options.most, options.slots);
  for (const size_t row : row_bytes_) {
    offsets_.push_back(bytes_);
    bytes_ += round_up(static_cast<size_t>(batch_size) * row, kAlignment);
  }
  const OnDevice on(kWho, options_.device);
  copies_ = make_stream(kWho, Priority::kHigh);
  for (uint32_t i = 0; i < options_.slots; ++i) add_slot();
}

void DeviceFeed::end() noexcept {
  if (std::exchange(ended_, true)) return;
  if (has_waiting_ && waiting_.rows > 0) source_.release(waiting_);
  has_waiting_ = false;
  const Deadline deadline = deadline_in(kPatience);
  for (;;) {
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      if (shared_->open.empty()) return;
    }
    // The question lets a device made of software go on, and says whether the device is lost.
    const Relaxed relaxed;
    const cudaError_t code = cudaStreamQuery(static_cast<cudaStream_t>(copies_.get()));
    if (code != cudaSuccess) (void)cudaGetLastError();
    if ((code != cudaSuccess && code != cudaErrorNotReady) || Clock::now() > deadline) {
      // Their host functions may still run, so the copies stay; the functions then find them gone from the list.
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      for (Copy* const copy : shared_->open) source_.release(copy->batch);
      shared_->open.clear();
      return;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

DeviceFeed::~DeviceFeed() {
  end();
  MemoryPool& pool = MemoryPool::of(options_.device);
  for (const std::unique_ptr<Slot>& slot : slots_) {
    for (const Event& use : slot->uses) {
      if (wait(copies_.get(), use) == 0) continue;
      (void)cudaGetLastError();
      // The stream cannot wait, so this thread does.
      if (cudaEventSynchronize(static_cast<cudaEvent_t>(use.get())) != cudaSuccess) (void)cudaGetLastError();
    }
    // The graph that a stream still captures may read the slot whenever it is launched, so the slot stays aside.
    pool.give(std::move(slot->memory), slot->capturing.empty() ? copies_.get() : slot->capturing.front());
  }
}

// Waits until a source has at most one batch in use beside the next one. Returns false at the deadline.
bool DeviceFeed::few_copies(Deadline deadline) {
  for (int tries = 0;; ++tries) {
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      if (shared_->open.size() < kMostCopies) return true;
    }
    const Relaxed relaxed;
    const cudaError_t code = cudaStreamQuery(static_cast<cudaStream_t>(copies_.get()));
    if (code != cudaSuccess) (void)cudaGetLastError();
    if (code != cudaSuccess && code != cudaErrorNotReady) throw_failure(kWho, noted("cudaStreamQuery", code));
    if (Clock::now() > deadline) return false;
    if (tries > 32) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

void DeviceFeed::add_slot() {
  auto slot = std::make_unique<Slot>();
  slot->memory = MemoryPool::of(options_.device).take(std::max<size_t>(bytes_, 1), copies_.get());
  slot->copied = make_event(kWho);
  const std::lock_guard<std::mutex> lock(mutex_);
  slots_.push_back(std::move(slot));
}

DeviceFeed::Slot& DeviceFeed::slot_of(uint32_t number) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  return *slots_[number];
}

uint32_t DeviceFeed::slots() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<uint32_t>(slots_.size());
}

// Records what the stream has to do now as a use of the slot. Returns false if the stream is capturing.
bool DeviceFeed::note_use(Slot* slot, void* stream) noexcept {
  int code = 0;
  if (is_capturing(stream, &code)) return false;
  if (code == 0) {
    try {
      Event event;
      if (spare_.empty()) {
        event = make_event(kWho);
      } else {
        event = std::move(spare_.back());
        spare_.pop_back();
      }
      code = record(event, stream);
      if (code == 0) slot->uses.push_back(std::move(event));
    } catch (...) {
      code = cudaErrorMemoryAllocation;
    }
  }
  // Without an event, wait here until the stream is done. A stream that was destroyed has no work to wait for.
  if (code != 0) {
    (void)cudaGetLastError();
    if (synchronize(stream) != 0) (void)cudaGetLastError();
  }
  return true;
}

void DeviceFeed::end_captures(Slot* slot) noexcept {
  std::erase_if(slot->capturing, [&](void* stream) { return note_use(slot, stream); });
}

bool DeviceFeed::find_free(uint32_t* slot) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& each = *slots_[i];
    if (!each.free) continue;
    end_captures(&each);
    if (!each.capturing.empty()) continue;
    each.free = false;
    *slot = static_cast<uint32_t>(i);
    return true;
  }
  return false;
}

Status DeviceFeed::take_slot(uint32_t* slot, Deadline deadline) {
  for (;;) {
    const uint32_t seen = returned_.value();
    if (find_free(slot)) return {};
    if (slots() < options_.most) {
      add_slot();
      continue;
    }
    if (Clock::now() >= deadline) {
      held_ = true;
      return {Code::kTimeout, "[loader] consumers keep all %u slots on the device", slots()};
    }
    (void)returned_.wait_change(seen, std::min(deadline, deadline_in(kSlice)));
  }
}

int DeviceFeed::copy_batch(std::byte* to, const Batch& batch) noexcept {
  if (row_bytes_.empty()) return 0;
  const auto* const first = static_cast<const std::byte*>(batch.fields[0]);
  const auto bytes_of = [&](size_t i) { return static_cast<size_t>(batch.rows) * row_bytes_[i]; };
  bool together = true;
  for (size_t i = 0; i < offsets_.size(); ++i)
    together = together && static_cast<const std::byte*>(batch.fields[i]) == first + offsets_[i];
  if (together) {
    return copy(Way::kToDevice, to, first, offsets_.back() + bytes_of(offsets_.size() - 1), copies_.get());
  }
  for (size_t i = 0; i < offsets_.size(); ++i) {
    if (bytes_of(i) == 0) continue;
    if (const int code = copy(Way::kToDevice, to + offsets_[i], batch.fields[i], bytes_of(i), copies_.get()))
      return code;
  }
  return 0;
}

// Queues the copy of a batch, and what gives its host memory back. It returns a code; if that is a failure, nothing reads the
// memory any more, which is still the feed's.
int DeviceFeed::queue_copy(Slot* slot, const Batch& batch) {
  int code = 0;
  for (const Event& use : slot->uses) {
    if (code == 0 && !planted(FeedPlant::kSlotReused)) code = wait(copies_.get(), use);
  }
  if (code == 0) {  // else the slot's next copy must wait for them
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Event& use : slot->uses) spare_.push_back(std::move(use));
    slot->uses.clear();
  }
  auto copied = std::make_unique<Copy>(Copy{shared_, &source_, batch});
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->open.push_back(copied.get());
  }
  if (planted(FeedPlant::kRefillBeforeCopy)) copied->give_back();
  if (code == 0) code = copy_batch(static_cast<std::byte*>(slot->memory.memory.data()), batch);
  if (code == 0) code = record(slot->copied, copies_.get());
  if (code == 0) {
    code = noted("cudaLaunchHostFunc",
                 cudaLaunchHostFunc(static_cast<cudaStream_t>(copies_.get()), &Copy::done, copied.get()));
  }
  if (code == 0) {
    (void)copied.release();
    return 0;
  }
  const char* const failed = failed_call;
  // A part of the copy may still run, so this waits until the stream is idle or lost.
  if (synchronize(copies_.get()) != 0) (void)cudaGetLastError();
  failed_call = failed;
  copied->forget();
  return code;
}

// Brings the batch that waits to a slot, if none is there already.
Status DeviceFeed::bring(Deadline deadline) {
  if (brought_.rows > 0) return {};
  uint32_t number = 0;
  const Status taken = take_slot(&number, deadline);
  if (!taken.ok()) return taken;
  Slot& slot = slot_of(number);
  int code = cudaErrorMemoryAllocation;
  try {
    code = queue_copy(&slot, waiting_);
  } catch (...) {  // no memory of the host for the copy's own data
    release(number, {});
    throw;
  }
  if (code != 0) {
    const Status failed = failure(code, name_of_next());
    release(number, {});
    return failed;
  }
  has_waiting_ = false;
  brought_ = {number, static_cast<std::byte*>(slot.memory.memory.data()), waiting_.rows, waiting_.position};
  return {};
}

std::string DeviceFeed::name_of_next() const { return "batch " + std::to_string(handed_) + " of this pass: "; }

Status DeviceFeed::next(Handed* handed, void* stream, Deadline deadline) noexcept {
  held_ = false;
  try {
    const OnDevice on(kWho, options_.device);
    int code = 0;
    if (is_capturing(stream, &code)) {
      return {
          Code::kUnavailable,
          "[loader] the current stream is capturing a graph, which cannot wait for the copy of a batch: get the batch "
          "before the capture begins, or after it has ended"};
    }
    if (code != 0) return failure(code);
    if (!has_waiting_ && brought_.rows == 0) {
      if (!few_copies(deadline)) return {Code::kTimeout, "[loader] the device has not copied the batches before"};
      const Status status = source_.next(&waiting_, deadline);
      if (!status.ok()) return status;
      has_waiting_ = true;
      if (waiting_.rows > 0) source_.fill(Lane{nullptr, 0, 1}, waiting_);
    }
    *handed = {};
    if (has_waiting_ && waiting_.rows == 0) return {};
    const Status status = bring(deadline);
    if (!status.ok()) return status;
    if (!planted(FeedPlant::kNoArrivalWait)) {
      if (const int failed = wait(stream, slot_of(brought_.slot).copied); failed != 0) {
        return failure(failed, name_of_next());
      }
    }
    *handed = std::exchange(brought_, {});
    ++handed_;
    return {};
  } catch (const Error& error) {
    return {error.code(), "%s", error.what()};
  } catch (...) {
    return {Code::kOutOfMemory, "[loader] no memory for one more batch on the device"};
  }
}

void DeviceFeed::release(uint32_t number, const std::vector<void*>& streams) noexcept {
  try {
    const OnDevice on(kWho, options_.device);
    const std::lock_guard<std::mutex> lock(mutex_);
    Slot& slot = *slots_[number];
    for (size_t i = 0; i < streams.size(); ++i) {
      if (i > 0 && planted(FeedPlant::kOneStreamOnly)) break;
      if (std::find(streams.begin(), streams.begin() + static_cast<std::ptrdiff_t>(i), streams[i]) !=
          streams.begin() + static_cast<std::ptrdiff_t>(i)) {
        continue;
      }
      if (!note_use(&slot, streams[i]) && !planted(FeedPlant::kCaptureForgotten)) slot.capturing.push_back(streams[i]);
    }
    slot.free = true;
    returned_.publish(++turns_ & 0x7fffffffu);
  } catch (...) {
    // The device is lost, or there is no memory for an event: the slot stays in use, and next() says what is wrong.
  }
}

}  // namespace gradring::cuda
