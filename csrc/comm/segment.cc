#include "comm/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <string>

#include "comm/control.h"
#include "comm/fences.h"
#include "runtime/cgroup.h"
#include "runtime/forks.h"
#include "runtime/huge_pages.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace gradring {

namespace {

constexpr size_t kLine = 64;
constexpr size_t kPage = 4096;

#if defined(__SANITIZE_THREAD__)
constexpr size_t kMostSpace = size_t{1} << 30;  // the sanitizer has shadow memory for a terabyte in all
#else
constexpr size_t kMostSpace = size_t{64} << 30;
#endif
constexpr size_t kLeastSpace = size_t{64} << 20;

// Small arrays begin at a cache line, larger ones at a page, and those of 2 MiB or more at a huge page.
size_t alignment_of(size_t bytes) noexcept { return bytes >= kHugePage ? kHugePage : bytes >= kPage ? kPage : kLine; }

// Maps a file privately in the place of another mapping.
bool map_privately(std::byte* at, size_t bytes, int fd, size_t offset) noexcept {
#if defined(__SANITIZE_THREAD__)  // which takes a call of mmap for a write to each of the bytes
  const long mapped = syscall(SYS_mmap, at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, offset);
  return mapped != -1;
#else
  return mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, static_cast<off_t>(offset)) != MAP_FAILED;
#endif
}

// Makes the kernel copy all pages of a private mapping, as a write to each of them would. Returns false if memory ran out.
bool copy_pages(std::byte* begin, size_t bytes) noexcept {
  int error = 0;
  do {
    error = madvise(begin, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : errno;
  } while (error == EINTR || error == EAGAIN);
  if (error != EINVAL) return error == 0;
  // An older kernel: write to each page, but change nothing, because another thread may write to the same bytes. An exchange is not
  // left out by a compiler, as an addition of zero may be.
  for (size_t at = 0; at < bytes; at += kPage) {
    const std::atomic_ref word(*reinterpret_cast<uint64_t*>(begin + at));
    uint64_t seen = word.load(std::memory_order_relaxed);
    while (!word.compare_exchange_weak(seen, seen, std::memory_order_relaxed, std::memory_order_relaxed)) {
    }
  }
  return true;
}

// Returns 0, or the error.
int allocate_pages(int fd, size_t begin, size_t bytes) noexcept {
  int error = 0;
  do {
    error = fallocate(fd, 0, static_cast<off_t>(begin), static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  } while (error == EINTR);
  return error;
}

}  // namespace

Reservation::~Reservation() {
  if (base_) munmap(base_, bytes_);
}

bool Reservation::reserve() noexcept {
  const auto memory = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t size = round_up(std::min(memory, kMostSpace), kHugePage); size >= kLeastSpace;
       size = round_up(size / 2, kHugePage)) {
    void* const address =
        mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) continue;
    auto* const begin = static_cast<std::byte*>(address);
    const size_t before =
        round_up(reinterpret_cast<uintptr_t>(address), kHugePage) - reinterpret_cast<uintptr_t>(address);
    if (before) munmap(begin, before);
    munmap(begin + before + size, kHugePage - before);
    base_ = begin + before;
    bytes_ = size;
    return true;
  }
  return false;
}

bool Reservation::map(int fd, size_t begin, size_t end) noexcept {
  void* const at =
      mmap(base_ + begin, end - begin, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(begin));
  if (at == MAP_FAILED) return false;
  collapse_into_huge_pages(at, end - begin);
  return true;
}

int OwnSegment::create() {
  int fd = memfd_create("gradring", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = memfd_create("gradring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  const bool made = fd >= 0 && fchmod(fd, S_IRUSR | S_IWUSR) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0;
  if (made) return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  throw Error(Code::kIo, std::string("[comm] memfd_create: ") + std::strerror(error));
}

OwnSegment::OwnSegment(int fd) : fd_(fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  struct stat status {};
  const bool good = seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &status) == 0 && status.st_size == 0;
  if (good && space_.reserve()) return;
  close(fd);
  if (good) throw Error(Code::kOutOfMemory, "[comm] no address space for the arrays of a rank");
  throw Error(Code::kInvalidArgument,
              "[comm] fd " + std::to_string(fd) + " is not a rank's own data segment: must be an empty one");
}

OwnSegment::~OwnSegment() { close(fd_); }

void* OwnSegment::allocate(size_t bytes) {
  const size_t unit = alignment_of(bytes);
  if (bytes > kMostSpace) {
    throw Error(Code::kOutOfMemory, "[comm] cannot allocate " + std::to_string(bytes) + " bytes of shared memory");
  }
  const size_t rounded = std::max(round_up(bytes, unit), kLine);
  const std::lock_guard lock(mutex_);
  for (int attempt = 0;; ++attempt) {
    for (auto [offset, size] : pieces_->free) {
      const size_t begin = round_up(offset, unit);
      if (begin + rounded > offset + size) continue;
      pieces_->free.erase(offset);
      if (begin > offset) pieces_->free[offset] = begin - offset;
      if (offset + size > begin + rounded) pieces_->free[begin + rounded] = offset + size - begin - rounded;
      pieces_->taken[begin] = rounded;
      return at(begin);
    }
    if (attempt) throw Error(Code::kInternal, "[comm] no place for an array after the segment grew");
    grow(rounded);
  }
}

void OwnSegment::free(void* address) noexcept {
  if (pieces_.in_child()) return;
  const std::lock_guard lock(mutex_);
  const auto taken = pieces_->taken.find(static_cast<size_t>(static_cast<std::byte*>(address) - space_.base()));
  if (taken == pieces_->taken.end()) return;
  pieces_->words.erase(taken->first);
  auto place = pieces_->free.insert(pieces_->taken.extract(taken)).position;  // allocates nothing
  const auto after = std::next(place);
  if (after != pieces_->free.end() && place->first + place->second == after->first) {
    place->second += after->second;
    pieces_->free.erase(after);
  }
  if (place != pieces_->free.begin()) {
    const auto before = std::prev(place);
    if (before->first + before->second == place->first) {
      before->second += place->second;
      pieces_->free.erase(place);
    }
  }
}

// Grows the segment by at least `bytes`. The caller holds the lock.
void OwnSegment::grow(size_t bytes) {
  const size_t begin = size_.load(std::memory_order_relaxed);
  const size_t more = round_up(std::max(bytes, kHugePage), kHugePage);
  const auto mebibytes = [](uint64_t count) { return std::to_string(count >> 20) + " MiB"; };
  if (detached())
    throw Error(Code::kUnavailable, "[comm.empty] the communicator has failed: make no more arrays in it");
  if (more > space_.size() - begin) {
    throw Error(Code::kOutOfMemory, "[comm] cannot reserve " + mebibytes(more) + " of shared memory: " +
                                        mebibytes(space_.size() - begin) + " of address space are left");
  }
  const uint64_t left = memory_left();
  if (more > left) {
    throw Error(Code::kOutOfMemory,
                "[comm] cannot reserve " + mebibytes(more) + " of shared memory: " + mebibytes(left) + " are left");
  }
  // At first, one small page stands in each huge page. To collapse it, the kernel clears the rest, which takes a tenth of the
  // time that it takes to copy 512 small pages. Then what the kernel has not collapsed is allocated.
  int error = 0;
  for (size_t at = begin; at < begin + more && !error; at += kHugePage) error = allocate_pages(fd_, at, kPage);
  if (!error) error = allocate_pages(fd_, begin + more - kPage, kPage);  // the file is now as long as the mapping
  if (!error && !space_.map(fd_, begin, begin + more)) error = errno;
  if (!error) error = allocate_pages(fd_, begin, more);
  if (error) {
    fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin), static_cast<off_t>(more));
    throw Error(Code::kOutOfMemory,
                "[comm] cannot reserve " + mebibytes(more) + " of shared memory: " + std::strerror(error));
  }
  size_.store(begin + more, std::memory_order_release);
  const auto last = pieces_->free.empty() ? pieces_->free.end() : std::prev(pieces_->free.end());
  if (last != pieces_->free.end() && last->first + last->second == begin) {
    last->second += more;
  } else {
    pieces_->free[begin] = more;
  }
}

// Moves the arrays piece by piece, so that twice the memory is never needed.
bool OwnSegment::detach() noexcept {
  const std::lock_guard lock(mutex_);
  lose();
  for (const auto& [words, bytes] : pieces_->words) {
    if (!make_private(words)) return false;
    private_ = covered_ = std::max(private_, words + bytes);
  }
  return make_private(size_.load(std::memory_order_relaxed));
}

// Moves what lies between private_ and `end`.
bool OwnSegment::make_private(size_t end) noexcept {
  // Every piece becomes a mapping, and a process may have no more than about 65,000.
  constexpr size_t kLeastPiece = size_t{256} << 10;
  size_t piece = size_t{32} << 20;
  while (private_ < end) {
    const size_t bytes = covered_ > private_ ? covered_ - private_ : std::min(piece, end - private_);
    if (replace(private_, bytes)) {
      private_ += bytes;
    } else if (bytes > kLeastPiece && covered_ <= private_) {
      piece = round_up(bytes / 2, kPage);  // there may be memory for less
    } else {
      return false;
    }
  }
  return true;
}

// A private mapping of the file takes the place of the shared one at once, and the kernel copies each of its pages before the first
// write. So what another thread of this process writes in the meantime is in the file before the copy, or in the copy.
bool OwnSegment::replace(size_t begin, size_t bytes) noexcept {
  if (covered_ <= begin) {
    if (!map_privately(at(begin), bytes, fd_, begin)) return false;
    covered_ = begin + bytes;
  }
  if (!copy_pages(at(begin), bytes)) return false;
  fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin), static_cast<off_t>(bytes));
  return true;
}

size_t OwnSegment::left_shared() const noexcept {
  const std::lock_guard lock(mutex_);
  size_t left = 0;
  for (const auto& [offset, bytes] : pieces_->taken) {
    if (!detached() || pieces_->words.count(offset)) continue;
    left += offset + bytes - std::clamp(private_, offset, offset + bytes);
  }
  return left;
}

void* OwnSegment::allocate_words(size_t bytes) {
  void* const words = allocate(round_up(bytes, kPage));
  const std::lock_guard lock(mutex_);
  const auto offset = static_cast<size_t>(static_cast<std::byte*>(words) - space_.base());
  pieces_->words[offset] = pieces_->taken[offset];
  return words;
}

size_t OwnSegment::allocated() const noexcept {
  if (pieces_.in_child()) return 0;
  const std::lock_guard lock(mutex_);
  size_t bytes = 0;
  for (const auto& [offset, size] : pieces_->taken) bytes += size;
  return bytes;
}

PeerSegment::~PeerSegment() { close(fd_); }

std::byte* PeerSegment::map(uint64_t offset, uint64_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  struct stat status {};
  if (fstat(fd_, &status) != 0 || (!space_.base() && !space_.reserve())) return nullptr;
  const size_t size = std::min(static_cast<size_t>(status.st_size), space_.size()) / kHugePage * kHugePage;
  if (offset > size || bytes > size - offset) return nullptr;
  const size_t begin = mapped_.load(std::memory_order_relaxed);
  if (begin < size) {
    if (!space_.map(fd_, begin, size)) return nullptr;
    mapped_.store(size, std::memory_order_release);
  }
  return space_.base() + offset;
}

std::vector<std::unique_ptr<PeerSegment>> Segments::adopt(int own_fd, int rank, const std::vector<int>& fds) {
  std::vector<std::unique_ptr<PeerSegment>> peers;
  try {
    peers.reserve(fds.size());
    for (size_t i = 0; i < fds.size(); ++i)
      peers.push_back(static_cast<int>(i) == rank ? nullptr : std::make_unique<PeerSegment>(fds[i]));
  } catch (...) {
    for (size_t i = peers.size(); i < fds.size(); ++i)
      if (static_cast<int>(i) != rank) close(fds[i]);
    close(own_fd);
    throw;
  }
  return peers;
}

Segments::Segments(int own_fd, int rank, const std::vector<int>& fds) : peers(adopt(own_fd, rank, fds)), own(own_fd) {}

void Segments::keep_words(std::byte* words) {
  const std::lock_guard lock(mutex_);
  known_->words.push_back(words);
}

void Segments::free_unused_words() noexcept {
  if (known_.in_child()) return;
  const std::lock_guard lock(mutex_);
  std::erase_if(known_->words, [this](std::byte* words) {
    if (reinterpret_cast<Header*>(words)->users.load(std::memory_order_acquire) != 0) return false;
    own.free(words);
    return true;
  });
}

void Segments::add(Exposure* exposure) {
  const std::lock_guard lock(mutex_);
  known_->exposures.push_back(exposure);
}

void Segments::remove(Exposure* exposure) noexcept {
  if (known_.in_child()) return;  // another thread may have held the lock during the fork
  const std::lock_guard lock(mutex_);
  std::erase(known_->exposures, exposure);
}

void Segments::detach() noexcept {
  if (known_.in_child()) return;
  const std::lock_guard lock(mutex_);
  if (!own.detached()) {
    own.lose();
    full_barrier();  // between this store and the look at each group's own; see expose
    for (Exposure* const each : known_->exposures) {
      if (!each->exposed_.load(std::memory_order_acquire)) continue;
      const uint32_t entered = each->control_.state(each->rank_).entered.load(std::memory_order_relaxed);
      each->control_.fail({Failure::Reason::kLost, each->rank_, entered});
    }
  }
  own.detach();
}

}  // namespace gradring
