#include "loader/slots.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>

#include "loader/slot_plant.h"
#include "runtime/cgroup.h"
#include "runtime/huge_pages.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr size_t kPage = 4096;
// Slots of this size and larger begin on pages, so that each slot can have huge pages and can be returned to the system.
constexpr size_t kPagedFrom = 64 << 10;
constexpr size_t kHugeFrom = size_t{2} << 20;

size_t stride_of(size_t slot_bytes) {
  if (slot_bytes > (size_t{1} << 46)) {
    throw Error(Code::kOutOfMemory,
                "[loader] a batch of " + std::to_string(slot_bytes) + " bytes is beyond any memory");
  }
  return round_up(std::max<size_t>(slot_bytes, 1), slot_bytes >= kPagedFrom ? kPage : kCacheLine);
}

// Reserves addresses at which the kernel can map a file's huge pages by one entry each: those that lie beyond a multiple of 2 MiB
// by as much as the file's bytes do. Null if there are none.
void* place_for_huge_pages(size_t bytes, size_t offset) noexcept {
  void* const space = mmap(nullptr, bytes + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(space);
  const size_t before = (kHugePage + offset % kHugePage - reinterpret_cast<uintptr_t>(space) % kHugePage) % kHugePage;
  if (before) munmap(begin, before);
  munmap(begin + before + bytes, kHugePage - before);
  return begin + before;
}

int shared_memory() {
  const int fd = memfd_create("gradring-slots", MFD_CLOEXEC);
  if (fd < 0) {
    throw Error(Code::kIo, std::string("[loader] cannot make shared memory for batches: ") + std::strerror(errno));
  }
  return fd;
}

}  // namespace

SlotMap::SlotMap(size_t stride, uint32_t first, uint32_t most, int fd) noexcept
    : stride_(stride), shift_(0), most_(std::clamp(most, 1u, SlotPool::kMost)), fd_(fd) {
  // A segment has a multiple of 64 slots of whole cache lines, which is a whole number of pages, so each begins on a page.
  const uint32_t least = stride % kPage == 0 ? 1 : static_cast<uint32_t>(kPage / kCacheLine);
  while ((uint32_t{1} << shift_) < std::clamp(first, least, SlotPool::kMost)) ++shift_;
}

SlotMap::~SlotMap() {
  for (uint32_t i = 0; i < kSegments; ++i) {
    if (segments_[i] != nullptr) munmap(segments_[i], bytes_of(i));
  }
}

size_t SlotMap::bytes_of(uint32_t segment) const noexcept {
  const uint32_t begin = begin_of(segment);
  const uint32_t end = std::min(uint32_t{1} << (shift_ + segment), most_);
  return round_up((end - begin) * stride_, kPage);
}

size_t SlotMap::reserved_bytes() const noexcept {
  size_t bytes = 0;
  for (uint32_t i = 0; i < kSegments; ++i) bytes += segments_[i] != nullptr ? bytes_of(i) : 0;
  return bytes;
}

std::byte* SlotMap::reach(uint32_t slot) noexcept {
  const uint32_t segment = segment_of(slot);
  if (segments_[segment] == nullptr) {
    const size_t bytes = bytes_of(segment);
    const int flags = MAP_NORESERVE | (fd_ >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    const size_t offset = fd_ >= 0 ? begin_of(segment) * stride_ : 0;
    void* const place = fd_ >= 0 && stride_ >= kHugeFrom ? place_for_huge_pages(bytes, offset) : nullptr;
    void* const address =
        mmap(place, bytes, PROT_READ | PROT_WRITE, flags | (place ? MAP_FIXED : 0), fd_, static_cast<off_t>(offset));
    if (address == MAP_FAILED) {
      if (place) munmap(place, bytes);
      return nullptr;
    }
    if (stride_ >= kHugeFrom) madvise(address, bytes, MADV_HUGEPAGE);  // only advice: the kernel may ignore it
    segments_[segment] = static_cast<std::byte*>(address);
  }
  return data(slot);
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

SlotPool::SlotPool(size_t slot_bytes, uint32_t first, uint32_t most, bool shared)
    : fd_(shared ? shared_memory() : -1), map_(stride_of(slot_bytes), first, most, fd_.get()) {
  const size_t bytes = round_up(stride() * map_.most(), kPage);
  if (shared && ftruncate(fd(), static_cast<off_t>(bytes)) != 0) {
    throw Error(Code::kIo, std::string("[loader] cannot make shared memory for batches: ") + std::strerror(errno));
  }
  if (map_.reach(0) == nullptr) {
    throw Error(Code::kOutOfMemory, "[loader] cannot reserve addresses for batches of " + std::to_string(stride()) +
                                        " bytes: " + std::strerror(errno) + "; lower batch_size or prefetch");
  }
  words_ = std::make_unique<std::atomic<uint64_t>[]>((map_.most() + 63) / 64);
}

void SlotPool::pin(Pinner& pinner) {
  if (fd() < 0 || slots_ > 0) {
    throw Error(Code::kInternal, "[loader] only shared slots can be pinned, and before the first is added");
  }
  pins_.emplace(pinner);
}

// The fewest slots that end on a page. Segments have a multiple of 64 slots or slots of whole pages, so a block lies in one segment.
uint32_t SlotPool::slots_per_block() const noexcept {
  return pins_ && pin_refusal_.ok() ? static_cast<uint32_t>(kPage / std::gcd(stride(), kPage)) : 1;
}

// Gives memory to bytes of the shared slots.
bool SlotPool::allocate(size_t begin, size_t end) noexcept {
  for (;;) {
    if (fallocate(fd(), 0, static_cast<off_t>(begin), static_cast<off_t>(end - begin)) == 0) return true;
    if (errno != EINTR) return false;
  }
}

bool SlotPool::grow(uint32_t* slot) noexcept {
  if (slots_ == map_.most()) return false;
  const uint32_t block = slots_per_block();
  // The kernel kills a container that exceeds its memory limit instead of refusing the memory. So ask how much is left, which
  // takes a while, and leave some of it for others.
  if ((stride() >= kHugeFrom || slots_ % 16 == 0) && stride() * std::max(16u, block) > memory_left()) return false;
  if (map_.reach(slots_) == nullptr) return false;
  if (fd() >= 0) {
    const size_t begin = slots_ * stride() / kPage * kPage;
    const uint32_t last = std::min(slots_ / block * block + block, map_.most());
    const size_t end = round_up(last * stride(), kPage);
    if (!allocate(begin, end)) return false;
    if (pins_ && pin_refusal_.ok() && slots_ % block == 0) {
      if (stride() >= kHugeFrom) collapse_into_huge_pages(data(slots_), end - begin);  // a refusal does no harm
      pin_refusal_ = pins_->add(data(slots_), end - begin + (planted(SlotPlant::kOverlaps) ? kPage : 0));
    }
  }
  *slot = slots_++;
  taken_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool SlotPool::take(uint32_t* slot) noexcept {
  for (uint32_t i = 0; i < (slots_ + 63) / 64; ++i) {
    uint64_t word = words_[i].load(std::memory_order_relaxed);
    while (word != 0) {
      if (words_[i].compare_exchange_weak(word, word & (word - 1), std::memory_order_acquire,
                                          std::memory_order_relaxed)) {
        *slot = i * 64 + static_cast<uint32_t>(__builtin_ctzll(word));
        taken_.fetch_add(1, std::memory_order_relaxed);
        return true;
      }
    }
  }
  return false;
}

void SlotPool::give(uint32_t slot) noexcept {
  taken_.fetch_sub(1, std::memory_order_relaxed);
  words_[slot / 64].fetch_or(uint64_t{1} << slot % 64, std::memory_order_release);
  returned_.publish((turns_.fetch_add(1, std::memory_order_relaxed) + 1) & 0x7fffffffu);
}

void SlotPool::trim() noexcept {
  if (stride() < kPagedFrom) return;
  for (uint32_t slot = 0; slot < slots_; ++slot) {
    if (!(words_[slot / 64].load(std::memory_order_acquire) >> slot % 64 & 1)) continue;
    // Shared slots stay allocated, because a page that was given back would have to be allocated again before use.
    if (fd() < 0) madvise(data(slot), stride(), MADV_DONTNEED);
    if (planted(SlotPlant::kTrimmed)) madvise(data(slot), stride(), MADV_REMOVE);
  }
}

}  // namespace gradring
