// How often this process and its ancestors have forked. An object that owns threads compares the number with an earlier one:
// if it has grown, the object is in a forked child, where its threads do not exist.
//
// | variable | writer           | readers      | order   | why                                                    |
// |----------|------------------|--------------|---------|--------------------------------------------------------|
// | forks    | the fork handler | forks_so_far | relaxed | it is written while the child has one thread alone     |
#pragma once

#include <cstdint>
#include <memory>

#include "gradring/export.h"

namespace gradring {

// A child of fork counts one more than its parent did. Forks before the first call are not counted.
GRADRING_API uint64_t forks_so_far() noexcept;

// Holds what the threads of a process change under a lock. Another thread may be changing it at the moment of a fork, so a forked
// child neither uses its copy nor destroys it: the copy stays in memory as it is.
template <class T>
class LeftInChildren {
 public:
  LeftInChildren() : held_(std::make_unique<T>()), forks_(forks_so_far()) {}
  ~LeftInChildren() {
    if (in_child()) (void)held_.release();
  }
  LeftInChildren(const LeftInChildren&) = delete;
  LeftInChildren& operator=(const LeftInChildren&) = delete;

  bool in_child() const noexcept { return forks_ != forks_so_far(); }
  T& operator*() const noexcept { return *held_; }
  T* operator->() const noexcept { return held_.get(); }

 private:
  std::unique_ptr<T> held_;
  uint64_t forks_;
};

}  // namespace gradring
