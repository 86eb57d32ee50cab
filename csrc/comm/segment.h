// Data segments: one growing piece of anonymous shared memory per rank, in which the rank's arrays lie.
//
// A rank allocates in its own segment without asking anyone, and tells the others an offset. They map it when they first
// get an offset that they have not mapped. A segment's pages are allocated before an offset is handed out, and the file
// is sealed against shrinking, so a peer that reads there never gets a SIGBUS. The address space is reserved once, so
// that arrays stay where they are while the segment grows.
//
// | variable             | writer       | readers         | order            | why                                       |
// |----------------------|--------------|-----------------|------------------|-------------------------------------------|
// | OwnSegment::size_    | allocate     | offset_of       | release, acquire | an address below it is mapped             |
// | OwnSegment::lost_    | detach       | any group       | release, acquire | the arrays leave the shared memory        |
// | PeerSegment::mapped_ | map          | at              | release, acquire | an offset below it is mapped              |
// | Exposure::exposed_   | expose,      | detach          | release, relaxed,| other ranks may reach this rank's arrays; |
// |                      | conceal      |                 | acquire, fences  | see expose                                |
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "gradring/export.h"
#include "runtime/forks.h"

namespace gradring {

// Reserved address space, at a multiple of 2 MiB. It has no memory until map is called.
class Reservation {
 public:
  Reservation() noexcept = default;
  ~Reservation();
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  // Reserves as many bytes as the machine has memory (at most 64 GiB), or fewer where address space is limited.
  bool reserve() noexcept;
  // Maps [begin, end) of the file at the same offset of this space.
  bool map(int fd, size_t begin, size_t end) noexcept;

  std::byte* base() const noexcept { return base_; }
  size_t size() const noexcept { return bytes_; }

 private:
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
};

class OwnSegment {
 public:
  // Makes a new empty memfd, sealed against shrinking. Throws Error.
  GRADRING_API static int create();

  // Takes over the descriptor, and closes it even if it throws Error.
  explicit OwnSegment(int fd);
  ~OwnSegment();
  OwnSegment(const OwnSegment&) = delete;
  OwnSegment& operator=(const OwnSegment&) = delete;

  // Aligned to 64 bytes or more, and to 2 MiB for 2 MiB or more. Never null, even for 0 bytes. Throws
  // Error(kOutOfMemory).
  void* allocate(size_t bytes);
  // Does nothing in a forked child: another thread may have held the lock during the fork, and the memory is its parent's.
  GRADRING_API void free(void* address) noexcept;
  // Whole pages that stay shared after detach: the control block of a group, which shows the group's failure.
  void* allocate_words(size_t bytes);

  // Whether [address, address + bytes) lies in the segment, and where.
  bool offset_of(const void* address, size_t bytes, uint64_t* offset) const noexcept {
    const auto begin = reinterpret_cast<uintptr_t>(address), base = reinterpret_cast<uintptr_t>(space_.base());
    const size_t size = size_.load(std::memory_order_acquire);
    *offset = begin - base;
    return begin >= base && *offset <= size && bytes <= size - *offset && !detached();
  }
  std::byte* at(uint64_t offset) const noexcept { return space_.base() + offset; }
  // Whether an address is one of this segment, even after its arrays have left the shared memory.
  bool contains(const void* address) const noexcept {
    return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(space_.base()) < space_.size();
  }

  // From now on, offset_of finds no array.
  void lose() noexcept { lost_.store(true, std::memory_order_release); }
  // Moves the arrays to private memory at the same addresses, so that no other process can reach them. Other threads of this process
  // may read and write them at the same time. Returns false if memory ran out: a further call then moves the rest.
  bool detach() noexcept;
  bool detached() const noexcept { return lost_.load(std::memory_order_acquire); }
  // How many bytes of arrays detach has left in shared memory.
  size_t left_shared() const noexcept;

  int fd() const noexcept { return fd_; }
  size_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  GRADRING_API size_t allocated() const noexcept;  // 0 in a forked child

 private:
  void grow(size_t bytes);
  bool make_private(size_t end) noexcept;
  bool replace(size_t begin, size_t bytes) noexcept;

  struct Pieces {
    std::map<size_t, size_t> free;  // from offsets to sizes; neighbours are merged
    std::map<size_t, size_t> taken;
    std::map<size_t, size_t> words;  // the pieces of taken that allocate_words has returned
  };

  int fd_;
  Reservation space_;
  std::atomic<size_t> size_{0};
  std::atomic<bool> lost_{false};
  mutable std::mutex mutex_;
  size_t private_ = 0;  // arrays below this offset have left the shared memory
  size_t covered_ = 0;  // up to here, a private mapping that copies a page when it is written
  LeftInChildren<Pieces> pieces_;
};

class PeerSegment {
 public:
  explicit PeerSegment(int fd) noexcept : fd_(fd) {}
  int fd() const noexcept { return fd_; }
  ~PeerSegment();
  PeerSegment(const PeerSegment&) = delete;
  PeerSegment& operator=(const PeerSegment&) = delete;

  // The address of bytes of the peer's segment. Null if the segment has no such bytes, or if they cannot be mapped.
  std::byte* at(uint64_t offset, uint64_t bytes) noexcept {
    const size_t mapped = mapped_.load(std::memory_order_acquire);
    if (offset <= mapped && bytes <= mapped - offset) [[likely]]
      return space_.base() + offset;
    return map(offset, bytes);
  }

 private:
  std::byte* map(uint64_t offset, uint64_t bytes) noexcept;

  int fd_;
  std::mutex mutex_;
  Reservation space_;
  std::atomic<size_t> mapped_{0};
};

class ControlBlock;

// Whether an operation of a group lets other ranks reach arrays of this rank's segment.
class Exposure {
 public:
  Exposure(ControlBlock& control, int rank) noexcept : control_(control), rank_(rank) {}
  Exposure(const Exposure&) = delete;
  Exposure& operator=(const Exposure&) = delete;

  // The operation calls this before it looks for its arrays in the segment. Between that and the last look at detached(), before
  // other ranks may succeed, it must pass a full memory barrier. Then either it finds the segment lost, or Segments::detach finds it.
  void expose() noexcept { exposed_.store(true, std::memory_order_release); }
  void conceal() noexcept { exposed_.store(false, std::memory_order_release); }
  bool exposed() const noexcept { return exposed_.load(std::memory_order_relaxed); }

 private:
  friend struct Segments;
  ControlBlock& control_;
  int rank_;
  std::atomic<bool> exposed_{false};
};

// The segments of a world as one rank sees them; the groups that are split off share them.
struct Segments {
  // Takes over `own` and all of `fds`. fds[rank] is not used.
  Segments(int own, int rank, const std::vector<int>& fds);

  // Control blocks of groups that were split off, in this rank's segment, are freed once no member uses them.
  void keep_words(std::byte* words);
  void free_unused_words() noexcept;

  // Each group of this rank adds itself while it lives.
  void add(Exposure* exposure);
  void remove(Exposure* exposure) noexcept;
  // Moves the arrays to private memory after the failure of a group. Other groups in whose operations peers reach these arrays at
  // this moment fail first: those peers would read what is no longer there, or write what this rank no longer sees.
  void detach() noexcept;

  std::vector<std::unique_ptr<PeerSegment>> peers;  // null at the rank's own place
  OwnSegment own;

 private:
  static std::vector<std::unique_ptr<PeerSegment>> adopt(int own, int rank, const std::vector<int>& fds);

  struct Known {
    std::vector<std::byte*> words;
    std::vector<Exposure*> exposures;
  };

  std::mutex mutex_;
  LeftInChildren<Known> known_;
};

}  // namespace gradring
