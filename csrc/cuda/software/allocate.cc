// The runtime's calls that allocate, free and register memory.
#include <algorithm>
#include <cstring>

#include "cuda/software/entry.h"
#include "cuda/software/memory.h"
#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

using namespace gradring::software;

namespace {

using Kind = Allocation::Kind;
constexpr uintptr_t kPage = 4096;

cudaError_t allocate(void** address, size_t bytes, Kind kind) {
  if (!address) return note(cudaErrorInvalidValue);
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  *address = map_allocation(bytes, kind, host_thread().device, false);
  return *address ? cudaSuccess : cudaErrorMemoryAllocation;
}

// Frees the memory that begins at the address. As in CUDA, all queued work ends first.
cudaError_t release(void* address, Kind kind) {
  if (!address) return cudaSuccess;
  const auto found = state().memory.find(reinterpret_cast<uintptr_t>(address));
  if (found == state().memory.end() || found->second.kind != kind || found->second.freed) {
    return note(cudaErrorInvalidValue);
  }
  finish_all();
  unmap_allocation(reinterpret_cast<uintptr_t>(address));
  return state().sticky;
}

bool pages_overlap(uintptr_t a, size_t a_bytes, uintptr_t b, size_t b_bytes) {
  const uintptr_t a_end = (a + a_bytes + kPage - 1) / kPage, b_end = (b + b_bytes + kPage - 1) / kPage;
  return a / kPage < b_end && b / kPage < a_end;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** address, size_t bytes) {
  GRADRING_ENTER("cudaMalloc", Manner::kForbiddenInCapture);
  return allocate(address, bytes, Kind::kDevice);
}

cudaError_t cudaFree(void* address) {
  GRADRING_ENTER("cudaFree", Manner::kForbiddenInCapture);
  return release(address, Kind::kDevice);
}

cudaError_t cudaMallocHost(void** address, size_t bytes) {
  GRADRING_ENTER("cudaMallocHost", Manner::kForbiddenInCapture);
  return allocate(address, bytes, Kind::kPinned);
}

cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  GRADRING_ENTER("cudaHostAlloc", Manner::kForbiddenInCapture);
  return allocate(address, bytes, Kind::kPinned);
}

cudaError_t cudaFreeHost(void* address) {
  GRADRING_ENTER("cudaFreeHost", Manner::kForbiddenInCapture);
  return release(address, Kind::kPinned);
}

// CUDA registers whole pages, so two ranges that share a page cannot both be registered.
cudaError_t cudaHostRegister(void* address, size_t bytes, unsigned) {
  GRADRING_ENTER("cudaHostRegister", Manner::kForbiddenInCapture);
  if (!address || bytes == 0) return note(cudaErrorInvalidValue);
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const auto& [base, each] : state().memory) {
    if (each.kind == Kind::kRegistered && pages_overlap(at, bytes, base, each.bytes)) {
      return note(cudaErrorHostMemoryAlreadyRegistered);
    }
    if (each.kind != Kind::kRegistered && pages_overlap(at, bytes, base, each.bytes))
      return note(cudaErrorInvalidValue);
  }
  Allocation made;
  made.kind = Kind::kRegistered;
  made.bytes = made.mapped = bytes;
  state().memory[at] = made;
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* address) {
  GRADRING_ENTER("cudaHostUnregister", Manner::kForbiddenInCapture);
  const auto found = state().memory.find(reinterpret_cast<uintptr_t>(address));
  if (found == state().memory.end() || found->second.kind != Kind::kRegistered) {
    return note(cudaErrorHostMemoryNotRegistered);
  }
  finish_all();
  state().memory.erase(found);
  return state().sticky;
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  GRADRING_ENTER("cudaHostGetDevicePointer");
  const Allocation* found = allocation_of(host, 1);
  if (!device || !found || is_device_kind(*found)) return note(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}

// The caller gets the address immediately. The memory exists once the stream has run the allocation; other streams need
// an event.
cudaError_t cudaMallocAsync(void** address, size_t bytes, cudaStream_t handle) {
  GRADRING_ENTER("cudaMallocAsync");
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (stream->capture) {  // memory nodes of graphs are not supported
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  if (!address) return note(cudaErrorInvalidValue);
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  const size_t used = state().used[static_cast<size_t>(stream->device)];
  if (bytes <= state().options.memory && used > state().options.memory - bytes)
    finish_all();  // queued frees may release enough memory
  void* memory = map_allocation(bytes, Kind::kDevice, stream->device, true);
  if (!memory) return cudaErrorMemoryAllocation;
  *address = memory;
  return submit(*stream, {"cudaMallocAsync", [memory, bytes] { std::memset(memory, 0xff, bytes); }, {}, false});
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t handle) {
  GRADRING_ENTER("cudaFreeAsync");
  CUstream_st* stream = stream_of(handle);
  if (!stream) return note(cudaErrorInvalidResourceHandle);
  if (!address) return cudaSuccess;
  const auto found = state().memory.find(reinterpret_cast<uintptr_t>(address));
  if (found == state().memory.end() || found->second.kind != Kind::kDevice || found->second.freed) {
    return note(cudaErrorInvalidValue);
  }
  if (stream->capture) {
    stream->capture->broken = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  found->second.freed = true;
  const size_t bytes = found->second.bytes;
  // The write makes a race detector report a use that is not ordered before the free.
  return submit(*stream, {"cudaFreeAsync",
                          [address, bytes] {
                            std::memset(address, 0xff, bytes);
                            begin_unseen();
                            unmap_allocation(reinterpret_cast<uintptr_t>(address));
                            end_unseen();
                          },
                          {},
                          false});
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  GRADRING_ENTER("cudaMemGetInfo");
  *total = state().options.memory;
  *available = *total - state().used[static_cast<size_t>(host_thread().device)];
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  GRADRING_ENTER("cudaPointerGetAttributes");
  if (!attributes) return note(cudaErrorInvalidValue);
  *attributes = {};
  const Allocation* found = allocation_of(address, 1);
  attributes->type = cudaMemoryTypeUnregistered;
  attributes->device = cudaInvalidDeviceId;
  attributes->hostPointer = const_cast<void*>(address);
  if (!found || found->freed) return cudaSuccess;
  attributes->device = found->device;
  attributes->devicePointer = const_cast<void*>(address);
  attributes->type = is_device_kind(*found) ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
  if (is_device_kind(*found)) attributes->hostPointer = nullptr;
  return cudaSuccess;
}

}  // extern "C"
