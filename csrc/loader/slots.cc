#include "loader/slots.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "runtime/cgroup.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr size_t kPage = 4096;
// From here on slots begin on pages, so that huge pages and trimming work slot by slot.
constexpr size_t kPagedFrom = 64 << 10;
constexpr size_t kHugeFrom = size_t{2} << 20;

}  // namespace

SlotPool::SlotPool(size_t slot_bytes, uint32_t most, bool shared) : most_(std::clamp(most, 1u, kMost)) {
  if (slot_bytes > (size_t{1} << 46)) {
    throw Error(Code::kOutOfMemory,
                "[loader] a batch of " + std::to_string(slot_bytes) + " bytes is beyond any memory");
  }
  stride_ = round_up(std::max<size_t>(slot_bytes, 1), slot_bytes >= kPagedFrom ? kPage : kCacheLine);
  const size_t bytes = round_up(stride_ * most_, kPage);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (shared) {
    fd_ = memfd_create("gradring-slots", MFD_CLOEXEC);
    if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(bytes)) != 0) {
      const std::string why = std::strerror(errno);
      if (fd_ >= 0) close(fd_);
      throw Error(Code::kIo, "[loader] cannot make shared memory for batches: " + why);
    }
    flags = MAP_SHARED | MAP_NORESERVE;
  }
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd_, 0);
  if (address == MAP_FAILED) {
    const std::string why = std::strerror(errno);
    if (fd_ >= 0) close(fd_);
    throw Error(Code::kOutOfMemory, "[loader] cannot reserve " + std::to_string(bytes >> 20) +
                                        " MiB of addresses for batches: " + why + "; lower memory_budget");
  }
  base_ = static_cast<std::byte*>(address);
  if (stride_ >= kHugeFrom) madvise(address, bytes, MADV_HUGEPAGE);  // a wish: refused without harm
  words_ = std::make_unique<std::atomic<uint64_t>[]>((most_ + 63) / 64);
}

SlotPool::~SlotPool() {
  munmap(base_, round_up(stride_ * most_, kPage));
  if (fd_ >= 0) close(fd_);
}

bool SlotPool::grow(uint32_t* slot) noexcept {
  if (slots_ == most_) return false;
  // A container over its limit is killed, not refused: ask first, and leave some for others. (Asking takes a while.)
  if ((stride_ >= kHugeFrom || slots_ % 16 == 0) && stride_ * 16 > memory_left()) return false;
  if (fd_ >= 0) {
    const size_t begin = slots_ * stride_ / kPage * kPage;
    const size_t end = round_up((slots_ + 1) * stride_, kPage);
    int error = 0;
    do {
      error = fallocate(fd_, 0, static_cast<off_t>(begin), static_cast<off_t>(end - begin)) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error) return false;
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
  if (stride_ < kPagedFrom) return;
  for (uint32_t slot = 0; slot < slots_; ++slot) {
    if (!(words_[slot / 64].load(std::memory_order_acquire) >> slot % 64 & 1)) continue;
    // Shared slots stay allocated: a hole would have to be filled before use.
    if (fd_ < 0) madvise(data(slot), stride_, MADV_DONTNEED);
  }
}

std::byte* map_slots(int fd, size_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (address == MAP_FAILED) {
    throw Error(Code::kOutOfMemory, std::string("[loader] cannot map the batches: ") + std::strerror(errno));
  }
  return static_cast<std::byte*>(address);
}

void unmap_slots(std::byte* base, size_t bytes) noexcept { munmap(base, bytes); }

}  // namespace gradring
