// How a test sets up the software device. Without a call of restart(), the environment does:
//
//   GRADRING_CUDA_SCHEDULE  eager, lazy or a seed: queued work runs at once, at the last moment, or at random moments
//   GRADRING_CUDA_FAIL      call:number:code,...   that call's number-th use fails with that code; "run" counts operations
//                           as they run, whose failure the next call reports
//   GRADRING_CUDA_MEMORY    bytes of a device
//   GRADRING_CUDA_DEVICES   how many there are; 0: as without a driver
//   GRADRING_CUDA_TIMES     kernel:microseconds,...   how long these kernels take by the device's clock
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuda/software/grid.h"

namespace gradring::software {

enum class Schedule { kEager, kLazy, kSeeded };

struct Fault {
  std::string call;
  int number = 1;
  int code = 0;
};

struct Options {
  Schedule schedule = Schedule::kEager;
  uint64_t seed = 0;
  BlockOrder order = BlockOrder::kForward;
  size_t memory = size_t{1} << 30;
  int devices = 1;
  int processors = 4;
  double patience_seconds = 30;  // how long work may spin before it counts as hung
  bool report_leaks = true;      // report leaks when the process ends
  std::vector<Fault> faults;
  std::map<std::string, int64_t> microseconds;  // how long a kernel takes by the device's clock; the others take 1
};

Options options_from_environment();

// Starts a new device, which forgets all that was queued or allocated.
void restart(const Options& options);

// Call this before a fork. ThreadSanitizer takes identities for threads, and in the child of a process with other threads it ignores
// the orders that the one that forked makes, so it would report races that are none. The identities of queued operations stay.
void forget_identities();

// Lists what is still allocated, registered or not destroyed; empty if there is nothing.
std::string leaks();

// How often each call was made since the start, "run" included.
std::map<std::string, int> calls();

// Counts a call of a library that runs on the device, such as cuBLASLt. Returns the code with which it must fail, or 0.
int library_call(const char* call);

// Whether a 16-byte access is aligned and within one allocation. Ends the process if it is not.
void check_access(const void* address, size_t bytes);

}  // namespace gradring::software
