// Arenas: one zeroed block of memory each, whose address never changes.
//
// AlignedArena is private to the process (temps, scratch). SharedArena is anonymous shared memory that other processes
// map through its file descriptor: parameters, gradients, optimizer state, ring slots. It has no name in the file
// system, so nothing is left behind if processes are killed. The constructor allocates every page before it returns, so
// that a machine without enough memory raises an error there, and never a SIGBUS later.
#pragma once

#include <cstddef>

#include "gradring/export.h"

namespace gradring {

class GRADRING_API AlignedArena {
 public:
  // Allocates memory that begins at a page (large arenas at a multiple of 2 MiB, in huge pages). `bytes` may be 0. Throws
  // Error(kOutOfMemory).
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
  // Makes a new arena and seals its size. Throws Error(kInvalidArgument, kOutOfMemory, kIo).
  explicit SharedArena(size_t bytes);
  // Maps another process's arena. It duplicates `fd`, which stays the caller's. It refuses a descriptor whose size is not
  // sealed, because the owner could shrink the memory while this process uses it.
  static SharedArena attach(int fd);
  SharedArena(SharedArena&& other) noexcept;
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;
  SharedArena& operator=(SharedArena&&) = delete;

  std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  // The arena's descriptor, which exec closes. Another process gets it by fork, SCM_RIGHTS or pidfd_getfd.
  int fd() const noexcept { return fd_; }

 private:
  SharedArena() noexcept = default;
  void map();

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
};

}  // namespace gradring
