// Duplicates of descriptors. The destructor closes those that were not moved out.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "runtime/status.h"

namespace gradring {

class Descriptors {
 public:
  Descriptors() noexcept = default;
  ~Descriptors() {
    for (const int fd : fds_)
      if (fd >= 0) close(fd);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  // Adds a duplicate of `fd`, or -1 for -1. Throws Error.
  void add(int fd) {
    fds_.reserve(fds_.size() + 1);
    const int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0 && copy < 0) {
      throw Error(Code::kInvalidArgument,
                  "[comm] descriptor " + std::to_string(fd) + " cannot be used: " + std::strerror(errno));
    }
    fds_.push_back(copy);
  }
  std::vector<int> release() noexcept { return std::exchange(fds_, {}); }

 private:
  std::vector<int> fds_;
};

}  // namespace gradring
