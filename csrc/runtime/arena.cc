#include "runtime/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "runtime/cgroup.h"
#include "runtime/huge_pages.h"
#include "runtime/status.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace gradring {

namespace {

constexpr size_t kPage = 4096;
// Below this a huge page wastes more memory than it saves in address translation.
constexpr size_t kHugeFrom = size_t{4} << 20;
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

[[noreturn]] void fail(Code code, const std::string& what, int error) {
  throw Error(code, "[arena] " + what + ": " + std::strerror(error));
}

std::string amount(uint64_t bytes) {
  return bytes >> 20 ? std::to_string(bytes >> 20) + " MiB" : std::to_string(bytes) + " bytes";
}

int create_memfd() {
  int fd = memfd_create("gradring", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = memfd_create("gradring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  return fd;
}

}  // namespace

AlignedArena::AlignedArena(size_t bytes) : size_(bytes) {
  const size_t slack = bytes >= kHugeFrom ? kHugePage : 0;
  if (bytes > std::numeric_limits<size_t>::max() - slack - kPage) {
    throw Error(Code::kOutOfMemory, "[arena] cannot allocate " + std::to_string(bytes) + " bytes");
  }
  mapped_ = (bytes ? bytes : 1) + slack;
  mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) fail(Code::kOutOfMemory, "cannot allocate " + amount(bytes), errno);
  const auto address = reinterpret_cast<uintptr_t>(mapping_);
  data_ = static_cast<std::byte*>(mapping_);
  if (slack) {
    data_ += (kHugePage - address % kHugePage) % kHugePage;
    madvise(data_, bytes, MADV_HUGEPAGE);  // advice: a refusal does no harm
  }
}

AlignedArena::~AlignedArena() { munmap(mapping_, mapped_); }

SharedArena::SharedArena(size_t bytes) : size_(bytes) {
  if (bytes == 0 || bytes > static_cast<size_t>(std::numeric_limits<off_t>::max()) - kPage) {
    throw Error(Code::kInvalidArgument,
                "[arena] bytes is " + std::to_string(bytes) + ": must be at least 1 and fit a file");
  }
  // Ask first how much is left: the kernel kills a container that exceeds its limit instead of refusing the memory.
  const uint64_t left = memory_left();
  if (bytes > left) {
    throw Error(Code::kOutOfMemory,
                "[arena] cannot reserve " + amount(bytes) + " of shared memory: " + amount(left) + " are left");
  }
  fd_ = create_memfd();
  if (fd_ < 0) fail(Code::kIo, "memfd_create", errno);
  try {
    int error = 0;
    do {
      error = fallocate(fd_, 0, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error) {
      const bool full = error == ENOSPC || error == ENOMEM || error == EFBIG;
      const std::string limit =
          error == EFBIG ? " (the limit of a file's size, ulimit -f, holds for it too: raise it)" : "";
      fail(full ? Code::kOutOfMemory : Code::kIo, "cannot reserve " + amount(bytes) + " of shared memory" + limit,
           error);
    }
    if (fchmod(fd_, S_IRUSR | S_IWUSR) != 0) fail(Code::kIo, "fchmod", errno);
    if (fcntl(fd_, F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) fail(Code::kIo, "cannot seal the size", errno);
    map(fd_, 0);
  } catch (...) {
    close(fd_);
    throw;
  }
}

SharedArena SharedArena::attach(int fd) {
  SharedArena arena;
  const int seals = fcntl(fd, F_GET_SEALS);
  struct stat status {};
  if (seals < 0 || fstat(fd, &status) != 0) {
    throw Error(Code::kInvalidArgument, "[arena] fd " + std::to_string(fd) + " is not an open memfd");
  }
  if ((seals & kSizeSeals) != kSizeSeals || status.st_size <= 0) {
    throw Error(Code::kInvalidArgument, "[arena] fd " + std::to_string(fd) + " is " + std::to_string(status.st_size) +
                                            " bytes long and not sealed: expected a SharedArena's fd");
  }
  arena.size_ = static_cast<size_t>(status.st_size);
  arena.fd_ = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (arena.fd_ < 0) fail(Code::kIo, "cannot duplicate fd " + std::to_string(fd), errno);
  arena.map(arena.fd_, 0);
  return arena;
}

SharedArena SharedArena::part_of(int fd, size_t offset, size_t bytes, std::shared_ptr<void> owner) {
  SharedArena arena;
  arena.size_ = bytes;
  arena.owner_ = std::move(owner);
  arena.map(fd, offset);
  return arena;
}

SharedArena::SharedArena(SharedArena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      fd_(std::exchange(other.fd_, -1)),
      owner_(std::move(other.owner_)) {}

SharedArena::~SharedArena() {
  if (data_) munmap(data_, size_);
  close_file();
}

void SharedArena::close_file() noexcept {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void SharedArena::move_to(int fd, size_t offset, std::shared_ptr<void> owner, bool keep) {
  for (size_t done = 0; keep && done < size_;) {
    const ssize_t wrote = pwrite(fd, data_ + done, size_ - done, static_cast<off_t>(offset + done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) fail(Code::kIo, "cannot copy " + amount(size_) + " to shared memory", errno);
    done += static_cast<size_t>(wrote);
  }
  void* const address =
      mmap(data_, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) fail(Code::kOutOfMemory, "cannot map " + amount(size_) + " of shared memory", errno);
  if (size_ >= kHugePage) collapse_into_huge_pages(data_, size_);
  close_file();
  owner_ = std::move(owner);
}

bool SharedArena::make_private() noexcept {
  constexpr size_t kPiece = size_t{32} << 20;
  bool all = true;
  for (size_t begin = 0; begin < size_; begin += kPiece) {
    const size_t bytes = (std::min(kPiece, size_ - begin) + kPage - 1) / kPage * kPage;
    void* const copy = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED) {
      all = false;
      continue;
    }
    std::memcpy(copy, data_ + begin, std::min(bytes, size_ - begin));
    if (mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, data_ + begin) == MAP_FAILED) {
      munmap(copy, bytes);
      all = false;
    }
  }
  if (all) {
    close_file();
    owner_.reset();
  }
  return all;
}

// Maps an arena of 2 MiB or more at a multiple of 2 MiB, and in huge pages where the kernel has them: the kernel maps a whole
// huge page of the file by one entry only at such an address. The unused ends of the reserved range are returned.
void SharedArena::map(int fd, size_t offset) {
  const auto failed = [&] { fail(Code::kOutOfMemory, "cannot map " + amount(size_) + " of shared memory", errno); };
  if (size_ < kHugePage) {
    void* const address = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (address == MAP_FAILED) failed();
    data_ = static_cast<std::byte*>(address);
    return;
  }
  const size_t pages = (size_ + kPage - 1) / kPage * kPage;
  void* const space = mmap(nullptr, pages + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) failed();
  auto* const begin = static_cast<std::byte*>(space);
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(space) % kHugePage) % kHugePage;
  void* const address =
      mmap(begin + before, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) {
    const int error = errno;
    munmap(space, pages + kHugePage);
    errno = error;
    failed();
  }
  if (before) munmap(begin, before);
  munmap(begin + before + pages, kHugePage - before);
  data_ = static_cast<std::byte*>(address);
  collapse_into_huge_pages(data_, size_);
}

}  // namespace gradring
