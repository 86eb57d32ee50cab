#include "cuda/device.h"
#include "cuda/failure.h"
#include "runtime/status.h"

namespace gradring::cuda {

namespace {

// The names of cublasStatus_t.
const char* library_name(int status) {
  switch (status) {
    case 1: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case 3: return "CUBLAS_STATUS_ALLOC_FAILED";
    case 7: return "CUBLAS_STATUS_INVALID_VALUE";
    case 8: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case 11: return "CUBLAS_STATUS_MAPPING_ERROR";
    case 13: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case 14: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case 15: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "a status of cuBLAS";
  }
}

bool lacks_memory(int code) { return code == cudaErrorMemoryAllocation || code == kLibraryError + 3; }

}  // namespace

bool is_lost(int code) noexcept {
  switch (code) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

std::string describe_failure(int code) {
  std::string text = std::string(failed_call) + ": ";
  const cudaError_t last = cudaGetLastError();
  cudaError_t error = last;  // For a library's call, this is what was wrong on the device.
  if (code >= kLibraryError) {
    const int status = code - kLibraryError;
    text += std::string(library_name(status)) + " (" + std::to_string(status) + ")";
    if (last != cudaSuccess) text += std::string(", ") + cudaGetErrorString(last) + " (" + cudaGetErrorName(last) + ")";
  } else {
    error = static_cast<cudaError_t>(code);
    text += std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + ", " + std::to_string(code) + ")";
  }
  if (is_lost(error)) text += "; the device is lost to this process: start a new one";
  if (error == cudaErrorInitializationError) {
    text += "; a process that was forked after CUDA had been used cannot use it: start a new one";
  }
  if (error == cudaErrorStreamCaptureUnsupported) {
    text +=
        "; a stream is capturing a graph, and this call has ended that: do this before the capture begins, or "
        "after it has ended";
  }
  if (error == cudaErrorInvalidResourceHandle) {
    text += "; the stream belongs to another device, or was destroyed: make a stream of this device the current one";
  }
  return text;
}

void throw_failure(const std::string& who, int code) {
  throw Error(lacks_memory(code) ? Code::kOutOfMemory : Code::kUnavailable, "[" + who + "] " + describe_failure(code));
}

}  // namespace gradring::cuda
