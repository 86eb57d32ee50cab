// Devices, versions, errors, and memory of other processes.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cuda/software/block.h"
#include "cuda/software/entry.h"
#include "cuda/software/memory.h"

using namespace gradring::software;

namespace {

bool exists(int device) { return device >= 0 && device < state().options.devices; }

struct Named {
  int code;
  const char *name, *text;
};
constexpr Named kErrors[] = {
    {0, "cudaSuccess", "no error"},
    {1, "cudaErrorInvalidValue", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "out of memory"},
    {3, "cudaErrorInitializationError", "initialization error"},
    {9, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {21, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {35, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {46, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {209, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
    {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {600, "cudaErrorNotReady", "device not ready"},
    {700, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {701, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {702, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {710, "cudaErrorAssert", "device-side assert triggered"},
    {712, "cudaErrorHostMemoryAlreadyRegistered", "part or all of the requested memory range is already mapped"},
    {713, "cudaErrorHostMemoryNotRegistered", "pointer does not correspond to a registered memory region"},
    {716, "cudaErrorMisalignedAddress", "misaligned address"},
    {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {800, "cudaErrorNotPermitted", "operation not permitted"},
    {801, "cudaErrorNotSupported", "operation not supported"},
    {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {902, "cudaErrorStreamCaptureMerge", "operation would result in a merge of separate capture sequences"},
    {903, "cudaErrorStreamCaptureUnmatched", "capture was not ended in the same stream as it began"},
    {904, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {905, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {906, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {908, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

// The content of a handle, which has 64 bytes and is only partly used.
struct Handle {
  uint64_t magic;
  int32_t process, memfd;
  uint64_t bytes, mapped;
};
static_assert(sizeof(Handle) <= sizeof(cudaIpcMemHandle_t));
constexpr uint64_t kMagic = 0x6772616472696e67;

}  // namespace

extern "C" {

// Reading an error never fails, and works even if the device is lost.
cudaError_t cudaGetLastError(void) {
  const Lock held;
  const cudaError_t code = state().sticky != cudaSuccess ? state().sticky : host_thread().last;
  host_thread().last = cudaSuccess;
  return code;
}

cudaError_t cudaPeekAtLastError(void) {
  const Lock held;
  return state().sticky != cudaSuccess ? state().sticky : host_thread().last;
}

const char* cudaGetErrorName(cudaError_t code) {
  for (const Named& each : kErrors) {
    if (each.code == static_cast<int>(code)) return each.name;
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t code) {
  for (const Named& each : kErrors) {
    if (each.code == static_cast<int>(code)) return each.text;
  }
  return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int* count) {
  GRADRING_ENTER("cudaGetDeviceCount");
  *count = state().options.devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  GRADRING_ENTER("cudaSetDevice");
  if (!exists(device)) return note(cudaErrorInvalidDevice);
  host_thread().device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  GRADRING_ENTER("cudaGetDevice");
  *device = host_thread().device;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  GRADRING_ENTER("cudaDriverGetVersion");
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  GRADRING_ENTER("cudaRuntimeGetVersion");
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  GRADRING_ENTER("cudaDeviceGetAttribute");
  if (!exists(device)) return note(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = state().options.processors; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(kStaticSharedLimit); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(kSharedLimit); break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    default: return note(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  GRADRING_ENTER("cudaGetDeviceProperties");
  if (!exists(device)) return note(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "software device");
  properties->totalGlobalMem = state().options.memory;
  properties->multiProcessorCount = state().options.processors;
  properties->maxThreadsPerBlock = 1024;
  properties->warpSize = 32;
  properties->sharedMemPerBlock = kStaticSharedLimit;
  properties->sharedMemPerBlockOptin = kSharedLimit;
  properties->major = 9;
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  GRADRING_ENTER("cudaDeviceCanAccessPeer");
  if (!exists(device) || !exists(peer)) return note(cudaErrorInvalidDevice);
  *can = device != peer;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  GRADRING_ENTER("cudaDeviceEnablePeerAccess");
  return exists(peer) && peer != host_thread().device ? cudaSuccess : note(cudaErrorInvalidDevice);
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* address) {
  GRADRING_ENTER("cudaIpcGetMemHandle");
  uintptr_t base = 0;
  const Allocation* found = allocation_of(address, 1, &base);
  // A handle stands for a whole allocation, and not for a stream-ordered one.
  if (!handle || !found || found->kind != Allocation::Kind::kDevice || found->stream_ordered || found->freed) {
    return note(cudaErrorInvalidValue);
  }
  const Handle made{kMagic, getpid(), found->memfd, found->bytes, found->mapped};
  std::memset(handle, 0, sizeof *handle);
  std::memcpy(handle, &made, sizeof made);
  return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void** address, cudaIpcMemHandle_t handle, unsigned flags) {
  GRADRING_ENTER("cudaIpcOpenMemHandle");
  Handle wanted;
  std::memcpy(&wanted, &handle, sizeof wanted);
  if (!address || flags != cudaIpcMemLazyEnablePeerAccess || wanted.magic != kMagic) return note(cudaErrorInvalidValue);
  if (wanted.process == getpid()) return note(cudaErrorInvalidResourceHandle);  // not in the process that made it
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", wanted.process, wanted.memfd);
  Allocation made;
  made.kind = Allocation::Kind::kImported;
  made.bytes = wanted.bytes;
  made.mapped = wanted.mapped;
  made.device = host_thread().device;
  made.memfd = open(path, O_RDWR | O_CLOEXEC);
  struct stat size {};
  if (made.memfd < 0) return note(cudaErrorInvalidResourceHandle);
  if (fstat(made.memfd, &size) != 0 || static_cast<uint64_t>(size.st_size) != made.mapped || made.bytes > made.mapped) {
    close(made.memfd);
    return note(cudaErrorInvalidResourceHandle);
  }
  *address = map_shared(made.memfd, made.bytes, made.mapped);
  if (!*address) {
    close(made.memfd);
    return note(cudaErrorMemoryAllocation);
  }
  state().memory[reinterpret_cast<uintptr_t>(*address)] = made;
  return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void* address) {
  GRADRING_ENTER("cudaIpcCloseMemHandle");
  const auto found = state().memory.find(reinterpret_cast<uintptr_t>(address));
  if (found == state().memory.end() || found->second.kind != Allocation::Kind::kImported) {
    return note(cudaErrorInvalidValue);
  }
  finish_all();
  unmap_allocation(reinterpret_cast<uintptr_t>(address));
  return cudaSuccess;
}

}  // extern "C"
