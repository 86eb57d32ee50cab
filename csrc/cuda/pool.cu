#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/pool.h"
#include "runtime/forks.h"
#include "runtime/status.h"

namespace gradring::cuda {

namespace {

constexpr const char* kWho = "memory";
constexpr size_t kLeast = 512;
constexpr int kMostDevices = 64;

// Sizes of which there are four between two powers of two, so that blocks fit again and at most a fifth of one is wasted.
size_t rounded(size_t bytes) noexcept {
  if (bytes <= kLeast) return kLeast;
  size_t step = kLeast;
  while (step * 8 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

struct Pools {
  std::mutex mutex;
  std::array<std::unique_ptr<MemoryPool>, kMostDevices> of;
  uint64_t born_in_fork = forks_so_far();
};

// Not destroyed, because arrays of other libraries may give blocks back until the process ends.
Pools& pools() {
  static auto* const all = new Pools;
  return *all;
}

}  // namespace

MemoryPool& MemoryPool::of(int device) {
  if (device < 0 || device >= kMostDevices) {
    throw Error(Code::kInvalidArgument, "[memory] there is no cuda:" + std::to_string(device));
  }
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.mutex);
  std::unique_ptr<MemoryPool>& pool = all.of[static_cast<size_t>(device)];
  if (!pool) pool = std::make_unique<MemoryPool>(device);
  return *pool;
}

bool MemoryPool::trim_all() noexcept {
  Pools& all = pools();
  const std::lock_guard<std::mutex> lock(all.mutex);
  bool any = false;
  for (const std::unique_ptr<MemoryPool>& pool : all.of)
    if (pool && pool->trim()) any = true;
  return any;
}

void MemoryPool::close_all() noexcept {
  Pools& all = pools();
  // At the end of a forked child: another thread may have held a lock when the parent forked, and the memory is the parent's.
  if (all.born_in_fork != forks_so_far()) return;
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (const std::unique_ptr<MemoryPool>& pool : all.of)
    if (pool) pool->close();
}

void MemoryPool::close() noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  (void)trim();
}

bool MemoryPool::find(size_t bytes, Block* block) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  // The block that was given back last is the one whose memory a cache may still hold.
  for (auto at = free_.rbegin(); at != free_.rend(); ++at) {
    if (at->memory.bytes() != bytes) continue;
    std::swap(*at, free_.back());
    *block = std::move(free_.back());
    free_.pop_back();
    return true;
  }
  return false;
}

MemoryPool::Block MemoryPool::take(size_t bytes, void* stream) {
  const OnDevice on(kWho, device_);
  require_no_capture(kWho, stream);
  const size_t size = rounded(bytes);
  Block block;
  if (find(size, &block)) {
    if (const int code = wait(stream, block.used); code != 0) {
      put_back(std::move(block));  // its event still marks the last use
      throw_failure(kWho, code);
    }
    return block;
  }
  block.used = make_event(kWho);
  block.memory = DeviceMemory(kWho, size);
  return block;
}

void MemoryPool::put_back(Block block) noexcept {
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!closed_) free_.push_back(std::move(block));
  } catch (...) {
    // Without memory for the list, the block is freed: that waits for all work that uses it.
  }
}

void MemoryPool::give(Block block, void* stream) noexcept {
  if (block.memory.data() == nullptr) return;
  try {
    const OnDevice on(kWho, device_);
    int code = 0;
    const bool capturing = is_capturing(stream, &code);
    if (code == 0 && !capturing) code = record(block.used, stream);
    if (code == 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!closed_ || capturing) (capturing ? aside_ : free_).push_back(std::move(block));
      return;
    }
    (void)describe_failure(code);  // the runtime forgets it: it is no failure of a later call
  } catch (...) {
    // Without memory for the list, or if the device is lost, the block is freed: that waits for all work that uses it.
  }
}

bool MemoryPool::trim() noexcept {
  std::vector<Block> old;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    old.swap(free_);
  }
  if (old.empty()) return false;
  try {
    const OnDevice on(kWho, device_);
    old.clear();
  } catch (...) {
    old.clear();
  }
  return true;
}

size_t MemoryPool::free_blocks() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  return free_.size();
}

}  // namespace gradring::cuda
