#include "loader/sources/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>

namespace gradring {

struct Guard {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<int> readers{0};
  std::atomic<int64_t> lost{INT64_MAX};  // the lowest offset whose page was gone
  Guard* next = nullptr;
};

namespace {

std::atomic<Guard*> guards{nullptr};
std::mutex guards_mutex;
struct sigaction previous_action;
uintptr_t page_bytes = 4096;

void pass_on(int signal, siginfo_t* info, void* context) {
  if (previous_action.sa_flags & SA_SIGINFO) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler == SIG_DFL || previous_action.sa_handler == SIG_IGN) {
    // When this returns, the load is tried again and ends the process, as it would have without this handler.
    struct sigaction fallback = {};
    fallback.sa_handler = SIG_DFL;
    sigaction(signal, &fallback, nullptr);
  } else {
    previous_action.sa_handler(signal);
  }
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Guard* guard = guards.load(std::memory_order_acquire); guard != nullptr; guard = guard->next) {
    const uintptr_t begin = guard->begin.load(std::memory_order_acquire);
    if (begin == 0 || address < begin || address >= guard->end.load(std::memory_order_relaxed)) continue;
    if (guard->readers.load(std::memory_order_relaxed) == 0) break;  // the fault is not from a read of this class
    const uintptr_t page = address / page_bytes * page_bytes;
    // This is the bare system call, because ThreadSanitizer takes a call of mmap for a write to memory that other threads read.
    if (syscall(SYS_mmap, page, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == -1) break;
    const auto offset = static_cast<int64_t>(page - begin);
    int64_t lowest = guard->lost.load(std::memory_order_relaxed);
    while (offset < lowest && !guard->lost.compare_exchange_weak(lowest, offset, std::memory_order_relaxed)) {
    }
    errno = saved_errno;
    return;
  }
  pass_on(signal, info, context);
  errno = saved_errno;
}

bool handler_is_ours() noexcept {
  struct sigaction now;
  return sigaction(SIGBUS, nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error;
}

// Unblocks SIGBUS in this thread: in a thread that blocks the signal, a fault ends the process instead of calling the handler.
bool signal_is_open() noexcept {
  thread_local const bool open = [] {
    sigset_t blocked;
    return pthread_sigmask(SIG_SETMASK, nullptr, &blocked) == 0 && sigismember(&blocked, SIGBUS) == 0;
  }();
  return open;
}

// Takes a free guard or makes one. The caller holds guards_mutex.
Guard* take_guard() {
  static bool installed = false;
  if (!installed) {
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
    installed = true;
  }
  for (Guard* guard = guards.load(std::memory_order_relaxed); guard != nullptr; guard = guard->next) {
    if (guard->begin.load(std::memory_order_relaxed) == 0) return guard;
  }
  auto* guard = new Guard;
  guard->next = guards.load(std::memory_order_relaxed);
  guards.store(guard, std::memory_order_release);
  return guard;
}

[[noreturn]] void fail(const std::string& path, int error) {
  throw Error(Code::kIo, "[loader] cannot read " + path + ": " + std::strerror(error));
}

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  // O_NONBLOCK, because opening a named pipe would otherwise wait for a writer.
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) fail(path_, errno);
  struct stat status;
  int error = fstat(fd_, &status) == 0 ? 0 : errno;
  if (error == 0 && S_ISDIR(status.st_mode)) error = EISDIR;
  if (error != 0) {
    close(fd_);
    fail(path_, error);
  }
  if (!S_ISREG(status.st_mode)) {
    close(fd_);
    throw Error(Code::kIo, "[loader] cannot read " + path_ + ": it is no regular file");
  }
  size_ = status.st_size;
  if (size_ == 0) return;
  void* mapping = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, fd_, 0);
  if (mapping == MAP_FAILED) return;  // some file systems cannot map files: pread reads these
  data_ = static_cast<const std::byte*>(mapping);
  const std::lock_guard lock(guards_mutex);
  guard_ = take_guard();
  guard_->lost.store(INT64_MAX, std::memory_order_relaxed);
  guard_->end.store(reinterpret_cast<uintptr_t>(data_) + static_cast<uintptr_t>(size_), std::memory_order_relaxed);
  guard_->begin.store(reinterpret_cast<uintptr_t>(data_), std::memory_order_release);
}

MappedFile::~MappedFile() {
  if (guard_ != nullptr) guard_->begin.store(0, std::memory_order_release);
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
  close(fd_);
}

bool MappedFile::enter() const noexcept {
  if (guard_ == nullptr || !signal_is_open() || !handler_is_ours()) return false;
  guard_->readers.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void MappedFile::leave() const noexcept { guard_->readers.fetch_sub(1, std::memory_order_relaxed); }

int64_t MappedFile::intact() const noexcept {
  struct stat status;
  int64_t bytes = fstat(fd_, &status) == 0 ? static_cast<int64_t>(status.st_size) : 0;
  if (guard_ != nullptr) bytes = std::min(bytes, guard_->lost.load(std::memory_order_relaxed));
  return std::min(bytes, size_);
}

Status MappedFile::cut_short(int64_t offset) const noexcept {
  return {Code::kIo,
          "[loader] %s was cut short while it was being read: offset %lld is gone (it had %lld bytes, now %lld)",
          path_.c_str(),
          static_cast<long long>(offset),
          static_cast<long long>(size_),
          static_cast<long long>(intact())};
}

Status MappedFile::pread(int64_t offset, size_t bytes, std::byte* to) const noexcept {
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_, to, bytes, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return {Code::kIo, "[loader] cannot read %s at offset %lld: %s", path_.c_str(), static_cast<long long>(offset),
              std::strerror(errno)};
    }
    if (got == 0) return cut_short(offset);
    offset += got;
    to += got;
    bytes -= static_cast<size_t>(got);
  }
  return {};
}

void MappedFile::will_read(int64_t offset, int64_t bytes) const noexcept {
  // The kernel cuts a request off at the device's read-ahead window, so this asks for one such window at a time.
  constexpr int64_t kWindow = 128 << 10;
  for (int64_t done = 0; done < bytes; done += kWindow) {
    posix_fadvise(fd_, offset + done, std::min(kWindow, bytes - done), POSIX_FADV_WILLNEED);
  }
}

}  // namespace gradring
