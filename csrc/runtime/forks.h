// How often this process and its ancestors have forked. An object that owns threads compares the number with an earlier one:
// if it has grown, the object is in a forked child, where its threads do not exist.
//
// | variable | writer           | readers      | order   | why                                                    |
// |----------|------------------|--------------|---------|--------------------------------------------------------|
// | forks    | the fork handler | forks_so_far | relaxed | it is written while the child has one thread alone     |
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

// A child of fork counts one more than its parent did. Forks before the first call are not counted.
GRADRING_API uint64_t forks_so_far() noexcept;

// Holds what the threads of a process change under a lock. Another thread may be changing it at the moment of a fork, so a forked
// child neither uses its copy nor destroys it: what the copy owns stays in memory.
template <class T>
class LeftInChildren {
 public:
  LeftInChildren() : held_() {}
  ~LeftInChildren() {
    if (!in_child()) held_.~T();
  }
  LeftInChildren(const LeftInChildren&) = delete;
  LeftInChildren& operator=(const LeftInChildren&) = delete;

  bool in_child() const noexcept { return forks_ != forks_so_far(); }
  T& operator*() noexcept { return held_; }
  const T& operator*() const noexcept { return held_; }
  T* operator->() noexcept { return &held_; }
  const T* operator->() const noexcept { return &held_; }

 private:
  union {
    T held_;  // its destructor does not run by itself
  };
  uint64_t forks_ = forks_so_far();
};

}  // namespace gradring
