// SlotPool: the memory of batches, its slots taken by the pipeline and given back by whoever held a batch last.
//
// | variable  | writer             | readers       | order             | why                                    |
// |-----------|--------------------|---------------|-------------------|----------------------------------------|
// | words_[i] | give: any thread   | take          | fetch_or release  | last reads end before the next use     |
// | words_[i] | take: the consumer | take          | CAS acquire       | takes a bit away                       |
// | taken_    | take, give         | taken         | relaxed           | a count for messages and statistics    |
// | returned_ | give (publish)     | wait_returned | Signal            | wakes a consumer that waits for a slot |
// | turns_    | give               | give          | fetch_add relaxed | each publish differs from the last     |
//
// One reservation of address space, so that slots never move; memory is added slot by slot. Shared slots lie in a memfd
// and are allocated before use, so that a full machine is an error and never a SIGBUS; processes map all of it once and
// see later slots appear.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "gradring/export.h"
#include "runtime/wait.h"

namespace gradring {

class GRADRING_API SlotPool {
 public:
  static constexpr uint32_t kMost = 65536;

  // Reserves address space for `most` slots and memory for none. Throws Error.
  SlotPool(size_t slot_bytes, uint32_t most, bool shared);
  ~SlotPool();
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  size_t stride() const noexcept { return stride_; }
  std::byte* base() const noexcept { return base_; }
  std::byte* data(uint32_t slot) const noexcept { return base_ + slot * stride_; }
  int fd() const noexcept { return fd_; }  // of shared slots, else -1

  uint32_t slots() const noexcept { return slots_; }
  uint32_t most() const noexcept { return most_; }
  uint32_t taken() const noexcept { return taken_.load(std::memory_order_relaxed); }

  // Adds a slot and takes it; false if there are `most`, or no memory. One thread at a time.
  bool grow(uint32_t* slot) noexcept;
  // Takes a free slot, of several the one that was first; false if there is none. One thread at a time.
  bool take(uint32_t* slot) noexcept;
  // From any thread.
  void give(uint32_t slot) noexcept;
  // A free slot given back since `seen` (from returns()), or the deadline.
  uint32_t returns() const noexcept { return returned_.value(); }
  bool wait_returned(uint32_t seen, Deadline deadline) noexcept { return returned_.wait_change(seen, deadline); }
  // Returns the memory of free slots to the system; their contents are lost.
  void trim() noexcept;

 private:
  size_t stride_;
  uint32_t most_;
  uint32_t slots_ = 0;
  int fd_ = -1;
  std::byte* base_ = nullptr;
  std::unique_ptr<std::atomic<uint64_t>[]> words_;
  std::atomic<uint32_t> taken_{0};
  std::atomic<uint32_t> turns_{0};
  Signal returned_;
};

// Maps another process's shared slots; `fd` stays the caller's. Unmapped by unmap_slots.
GRADRING_API std::byte* map_slots(int fd, size_t bytes);
GRADRING_API void unmap_slots(std::byte* base, size_t bytes) noexcept;

}  // namespace gradring
