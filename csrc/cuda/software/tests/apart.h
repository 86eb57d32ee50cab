// Runs a program of the software device in a process of its own, so that a test can see how it ends.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cuda/software/control.h"

namespace gradring::software {

// How a process ends after a report of ThreadSanitizer, and after one of AddressSanitizer.
inline constexpr int kRaceReported = 67, kBadAddressReported = 68;

struct Outcome {
  int status = 0;    // the exit status, or 128 + the signal that ended the process
  std::string said;  // the text on standard output and error
};

// `program` returns 0 if its results were right. Leaks count as an error, whose message lists them.
Outcome run_apart(const Options& options, const std::function<int()>& program);
// Does the same in a process that has only been forked, as a user's might be: it has no device of its own.
Outcome run_forked(const std::function<int()>& program);

// Returns the eager and the lazy schedule, and `seeds` random ones, each with another order of blocks and threads.
std::vector<Options> every_schedule(int seeds = 10);
// Returns those of one trial among many: eager, lazy, and one of ten seeds, in turn. The first trial has all ten.
std::vector<Options> schedules_of(int turn);
std::string name(const Options& options);

}  // namespace gradring::software

// Programs use this for a call that must succeed.
#define OK(call)                                                  \
  do {                                                            \
    if (const cudaError_t code_ = (call); code_ != cudaSuccess) { \
      std::printf("%s: %s\n", #call, cudaGetErrorName(code_));    \
      return 1;                                                   \
    }                                                             \
  } while (false)
