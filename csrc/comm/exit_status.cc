#include "comm/exit_status.h"

#include <sys/ioctl.h>

#include <cstdint>
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

}  // namespace gradring
