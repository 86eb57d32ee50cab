// Descriptions of failed CUDA calls. Kernels and products return codes, as CUDA does: a code alone does not say which call
// returned it, so each thread remembers the call. No CUDA header is needed.
#pragma once

#include <string>

namespace gradring::cuda {

// This number is added to a status of cuBLASLt, to distinguish it from a code of the CUDA runtime.
inline constexpr int kLibraryError = 100000;

// The call of this thread that failed last.
inline thread_local const char* failed_call = "a CUDA call";

// Remembers the call if the code is a failure, and returns the code.
template <class Code>
Code noted(const char* call, Code code) noexcept {
  if (static_cast<int>(code) != 0) failed_call = call;
  return code;
}

// Whether this process cannot use the device any more after a call that returned the code.
bool is_lost(int code) noexcept;

// Describes the failure that failed_call returned, such as "cudaLaunchKernel: too many resources requested for launch
// (cudaErrorLaunchOutOfResources, 701)", and says whether the device is lost. The runtime forgets the failure.
std::string describe_failure(int code);

// Throws Error("[who] " + describe_failure(code)): kOutOfMemory where memory lacked, else kUnavailable.
[[noreturn]] void throw_failure(const std::string& who, int code);

}  // namespace gradring::cuda
