// Helpers for tests: child processes, systems that refuse threads, and what sanitizers do not allow.
//
//   TEST_CASE("..." * doctest::skip(testing::kSanitized)) { ... }
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>

#ifndef __has_feature
#define __has_feature(x) 0  // only clang has it
#endif

namespace gradring::testing {

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
inline constexpr bool kThreadSanitized = true;  // a child of a process with several threads may start none
#else
inline constexpr bool kThreadSanitized = false;
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
// A sanitizer needs the address space and descriptors: no test may limit them. In GCC 12, AddressSanitizer's locks of memory and of
// threads may be held at a fork, and a child that frees much memory or starts a thread then waits for ever.
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = kThreadSanitized;
#endif

// Runs body in a child process. Returns the exit status, or -1 if a signal killed the child (SIGALRM does after 60 s).
template <class Body>
int exit_of_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(body());
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Limits this process's address space; RLIM_INFINITY lifts the limit again.
inline void set_address_space(rlim_t bytes) {
  rlimit limit{};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = bytes;
  setrlimit(RLIMIT_AS, &limit);
}

// From now on this process gets at most `bytes` more of address space: the stacks of a few threads (8 MiB each).
inline void limit_address_space(size_t bytes) {
  std::ifstream statm("/proc/self/statm");
  rlim_t pages = 0;
  statm >> pages;
  set_address_space(pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + bytes);
}

}  // namespace gradring::testing
