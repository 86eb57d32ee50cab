// SlotPool: the memory of batches. The pipeline takes slots, and the last holder of a batch gives its slot back.
//
// | variable  | writer             | readers       | order             | why                                    |
// |-----------|--------------------|---------------|-------------------|----------------------------------------|
// | words_[i] | give: any thread   | take          | fetch_or release  | last reads end before the next use     |
// | words_[i] | take: the consumer | take          | CAS acquire       | takes a bit away                       |
// | taken_    | take, give         | taken         | relaxed           | a count for messages and statistics    |
// | returned_ | give (publish)     | wait_returned | Signal            | wakes a consumer that waits for a slot |
// | turns_    | give               | give          | fetch_add relaxed | each publish differs from the last     |
//
// Slots never move. Address space is reserved in segments, each as long as all before it together, when a slot in it is
// first needed; memory is added slot by slot. Shared slots lie in a memfd and are allocated before use, so that a full
// machine is an error and never a SIGBUS. A worker process maps a segment when it first gets a slot in it.
//
// Shared slots can be pinned for a device (runtime/pinning.h). They are registered in blocks of whole slots that end on a page, so
// each slot lies within one registration and no page is in two. A block is allocated whole, collapsed into huge pages where
// slots are large, and then registered; no shared slot is trimmed, and the registrations end before the memory is unmapped.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "gradring/export.h"
#include "runtime/pinning.h"
#include "runtime/status.h"
#include "runtime/wait.h"

namespace gradring {

// Finds the memory of slots. A segment is mapped once, before any thread gets the number of a slot in it, and stays mapped
// until the end. So any thread that has a slot's number may ask for its address.
class SlotMap {
 public:
  // Segment 0 has room for at least `first` slots. `fd` is the descriptor of shared slots, which stays the caller's, or -1 for
  // private memory. The constructor maps nothing.
  GRADRING_API SlotMap(size_t stride, uint32_t first, uint32_t most, int fd) noexcept;
  GRADRING_API ~SlotMap();
  SlotMap(const SlotMap&) = delete;
  SlotMap& operator=(const SlotMap&) = delete;

  size_t stride() const noexcept { return stride_; }
  uint32_t first() const noexcept { return uint32_t{1} << shift_; }
  uint32_t most() const noexcept { return most_; }
  // The slot's address. It maps the slot's segment if necessary, so only one thread at a time may call it. Null if the system
  // refuses to map it.
  std::byte* reach(uint32_t slot) noexcept;
  // The address of a slot for which reach was called before. Any thread may call it.
  std::byte* data(uint32_t slot) const noexcept {
    const uint32_t segment = segment_of(slot);
    return segments_[segment] + (slot - begin_of(segment)) * stride_;
  }
  size_t reserved_bytes() const noexcept;

 private:
  static constexpr uint32_t kSegments = 18;
  // Segment 0 has the slots below 2^shift, segment i > 0 those from 2^(shift + i - 1) to 2^(shift + i).
  uint32_t segment_of(uint32_t slot) const noexcept {
    const uint32_t high = slot >> shift_;
    return high == 0 ? 0 : 32 - static_cast<uint32_t>(__builtin_clz(high));
  }
  uint32_t begin_of(uint32_t segment) const noexcept {
    return segment == 0 ? 0 : uint32_t{1} << (shift_ + segment - 1);
  }
  size_t bytes_of(uint32_t segment) const noexcept;

  size_t stride_;
  uint32_t shift_;
  uint32_t most_;
  int fd_;
  std::byte* segments_[kSegments] = {};
};

// Owns a file descriptor and closes it in its destructor; -1 stands for none.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) noexcept : fd_(fd) {}
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

class SlotPool {
 public:
  static constexpr uint32_t kMost = 65536;

  // Reserves address space for the `first` slots and memory for none. There can be `most` of them. Throws Error.
  SlotPool(size_t slot_bytes, uint32_t first, uint32_t most, bool shared);
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  size_t stride() const noexcept { return map_.stride(); }
  SlotMap& map() noexcept { return map_; }
  std::byte* data(uint32_t slot) const noexcept { return map_.data(slot); }
  int fd() const noexcept { return fd_.get(); }  // the descriptor of shared slots, else -1

  uint32_t slots() const noexcept { return slots_; }
  uint32_t taken() const noexcept { return taken_.load(std::memory_order_relaxed); }

  // Registers the slots with a device as they are added. Throws Error(kInternal) if the slots are private, or if there are some
  // already. If the device refuses, the slots are as good as before, and pin_refusal tells why; it is not asked again.
  void pin(Pinner& pinner);
  // Whether the slot lies within one registration. Only the thread that adds slots may call it.
  bool pinned(uint32_t slot) const noexcept { return pins_ && pins_->hold(data(slot), stride()); }
  const Status& pin_refusal() const noexcept { return pin_refusal_; }

  // Adds a slot and takes it. False if there are `most`, or if memory or addresses are short. For one thread at a time.
  bool grow(uint32_t* slot) noexcept;
  // Takes the free slot with the lowest number. False if there is none. One thread at a time.
  bool take(uint32_t* slot) noexcept;
  // Gives a slot back. Any thread may call it.
  GRADRING_API void give(uint32_t slot) noexcept;
  // wait_returned waits until a slot is given back after returns() returned `seen`. It returns false at the deadline.
  uint32_t returns() const noexcept { return returned_.value(); }
  bool wait_returned(uint32_t seen, Deadline deadline) noexcept { return returned_.wait_change(seen, deadline); }
  // Returns the memory of free slots to the system; their contents are lost.
  void trim() noexcept;

 private:
  uint32_t slots_per_block() const noexcept;
  bool allocate(size_t begin, size_t end) noexcept;

  uint32_t slots_ = 0;
  Descriptor fd_;
  SlotMap map_;
  std::optional<PinnedRanges> pins_;  // behind map_, so that it ends first
  Status pin_refusal_;
  std::unique_ptr<std::atomic<uint64_t>[]> words_;
  std::atomic<uint32_t> taken_{0};
  std::atomic<uint32_t> turns_{0};
  Signal returned_;
};

}  // namespace gradring
