#include "comm/exit_status.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace gradring {

namespace {

// PIDFD_GET_INFO with PIDFD_INFO_EXIT, as linux/pidfd.h has them since 6.15.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroupid;
  uint32_t pid, tgid, ppid;
  uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
  int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr uint64_t kExit = 1 << 3;
constexpr unsigned long kGetInfo = _IOWR(0xff, 11, PidfdInfo);

// Reads the beginning of a small file, and ends it with a zero byte; empty if it cannot be read.
template <size_t kBytes>
void read_beginning(const char* path, char (&text)[kBytes]) noexcept {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t bytes = fd < 0 ? 0 : read(fd, text, kBytes - 1);
  if (fd >= 0) close(fd);
  text[bytes > 0 ? bytes : 0] = 0;
}

}  // namespace

int exit_status_of(int pidfd) noexcept {
  if (pidfd < 0) return -1;
  for (int attempt = 0; attempt < 20; ++attempt) {
    PidfdInfo info{};
    info.mask = kExit;
    if (ioctl(pidfd, kGetInfo, &info) != 0) {
      if (attempt > 0) return -1;
    } else if (info.mask & kExit) {
      return info.exit_code;
    }
    const timespec moment{0, 5'000'000};
    nanosleep(&moment, nullptr);
  }
  return -1;
}

bool is_stopped(int pidfd) noexcept {
  if (pidfd < 0) return false;
  char path[64], text[1024];
  std::snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
  read_beginning(path, text);
  const char* const pid = std::strstr(text, "\nPid:");
  if (!pid) return false;
  std::snprintf(path, sizeof path, "/proc/%ld/stat", std::strtol(pid + 5, nullptr, 10));
  read_beginning(path, text);
  // The state comes after the name, which is in parentheses and may contain parentheses itself.
  const char* const name_end = std::strrchr(text, ')');
  return name_end && name_end[1] == ' ' && (name_end[2] == 'T' || name_end[2] == 't');
}

}  // namespace gradring
