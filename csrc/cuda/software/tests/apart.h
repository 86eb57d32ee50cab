// Runs a program of the software device in a process of its own, so that a test can see how it ends.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cuda/software/control.h"

namespace gradring::software {

struct Outcome {
  int status = 0;    // of the process; 128 + the signal that ended it
  std::string said;  // on standard output and error
};

// program: 0 if its results were right. Leaks count as an error, with what is leaked as the message.
Outcome run_apart(const Options& options, const std::function<int()>& program);

// Eager, lazy, and as many seeds; each with an order of blocks and threads of its own.
std::vector<Options> every_schedule(int seeds);
std::string name(const Options& options);

}  // namespace gradring::software

// In a program: a call that must succeed.
#define OK(call)                                                  \
  do {                                                            \
    if (const cudaError_t code_ = (call); code_ != cudaSuccess) { \
      std::printf("%s: %s\n", #call, cudaGetErrorName(code_));    \
      return 1;                                                   \
    }                                                             \
  } while (false)
