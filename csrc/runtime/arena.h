// Arenas: one zeroed block of memory each, whose address never changes.
//
// AlignedArena is private to the process (temps, scratch). SharedArena is anonymous shared memory that other processes
// map through its file descriptor: parameters, gradients, optimizer state, ring slots. It has no name in the file
// system, so nothing is left behind whatever is killed, and every page is allocated before the constructor returns, so
// that a full machine is an error there and never a SIGBUS later.
#pragma once

#include <cstddef>

#include "gradring/export.h"

namespace gradring {

class GRADRING_API AlignedArena {
 public:
  // Page-aligned (2 MiB and huge pages where it pays). bytes may be 0. Throws Error(kOutOfMemory).
  explicit AlignedArena(size_t bytes);
  ~AlignedArena();
  AlignedArena(const AlignedArena&) = delete;
  AlignedArena& operator=(const AlignedArena&) = delete;

  std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
};

class GRADRING_API SharedArena {
 public:
  // A new arena; its size is sealed. Throws Error(kInvalidArgument, kOutOfMemory, kIo).
  explicit SharedArena(size_t bytes);
  // Maps another process's arena; `fd` is duplicated and stays the caller's. A descriptor whose size is not sealed is
  // refused: its owner could shrink it under us.
  static SharedArena attach(int fd);
  SharedArena(SharedArena&& other) noexcept;
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;
  SharedArena& operator=(SharedArena&&) = delete;

  std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  // Closed on exec; pass it on by fork, SCM_RIGHTS or pidfd_getfd.
  int fd() const noexcept { return fd_; }

 private:
  SharedArena() noexcept = default;
  void map();

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
};

}  // namespace gradring
