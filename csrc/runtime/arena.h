// Arenas: one zeroed block of memory each, whose address never changes.
//
// AlignedArena is private to the process (temps, scratch). SharedArena is anonymous shared memory that other processes
// map through its file descriptor: parameters, gradients, optimizer state, ring slots. It has no name in the file
// system, so nothing is left behind if processes are killed. The constructor allocates every page before it returns, so
// that a machine without enough memory raises an error there, and never a SIGBUS later.
#pragma once

#include <cstddef>
#include <memory>

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
  // Maps a part of a file that several processes share. The part begins at a page, and at a multiple of 2 MiB if it is 2 MiB or
  // larger; `owner` keeps it. Throws Error(kOutOfMemory).
  static SharedArena part_of(int fd, size_t offset, size_t bytes, std::shared_ptr<void> owner);
  SharedArena(SharedArena&& other) noexcept;
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;
  SharedArena& operator=(SharedArena&&) = delete;

  std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  // The arena's descriptor, which exec closes. Another process gets it by fork, SCM_RIGHTS or pidfd_getfd. It is -1 once the arena
  // is a part of another file, or private.
  int fd() const noexcept { return fd_; }

  // Replaces the arena's memory by a part of a file, as for part_of, at the same addresses. With `keep` it writes the arena's bytes
  // to the file first. No other thread may write to the arena at the same time. Throws Error, and then changes nothing.
  void move_to(int fd, size_t offset, std::shared_ptr<void> owner, bool keep);
  // Copies the arena to private memory at the same addresses, so that no other process reaches it any more. Returns false if a
  // part has stayed shared, because there was no memory.
  bool make_private() noexcept;

 private:
  SharedArena() noexcept = default;
  void map(int fd, size_t offset);
  void close_file() noexcept;

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
  std::shared_ptr<void> owner_;  // of the file of which this arena is a part
};

}  // namespace gradring
