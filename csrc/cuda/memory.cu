#include <cstdint>
#include <utility>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/memory.h"
#include "cuda/pool.h"
#include "cuda/stream.h"
#include "runtime/status.h"

namespace gradring::cuda {

namespace {

constexpr uintptr_t kAlignment = 256;  // as cudaMalloc's

}  // namespace

DeviceMemory::DeviceMemory(const std::string& who, size_t bytes, const Lender& lender) {
  if (bytes == 0) return;
  if (BorrowedMemory borrowed = lender ? lender(bytes) : BorrowedMemory{};
      reinterpret_cast<uintptr_t>(borrowed.data) % kAlignment == 0 && borrowed.data) {
    // It may come behind work of its allocator's stream.
    int code = noted("cudaGetDevice", cudaGetDevice(&device_));
    if (code == 0) code = synchronize_device();
    if (code != 0) throw_failure(who, code);
    data_ = borrowed.data, bytes_ = bytes, owner_ = std::move(borrowed.owner);
    return;
  }
  void* data = nullptr;
  const Relaxed relaxed;
  cudaError_t code = noted("cudaMalloc", cudaMalloc(&data, bytes));
  if (code == cudaErrorMemoryAllocation && MemoryPool::trim_all()) {  // the pools' free blocks may be what is missing
    (void)cudaGetLastError();
    code = noted("cudaMalloc", cudaMalloc(&data, bytes));
  }
  if (code == cudaErrorMemoryAllocation) {
    std::string text = "[" + who + "] " + describe_failure(code) + ": " + std::to_string(bytes) + " bytes are wanted";
    size_t available = 0, total = 0;
    if (cudaMemGetInfo(&available, &total) == cudaSuccess) {
      text += ", " + std::to_string(available) + " of " + std::to_string(total) + " are free";
    } else {
      (void)cudaGetLastError();
    }
    throw Error(Code::kOutOfMemory, text + "; use a smaller batch or model, or end who else uses the device");
  }
  if (code != cudaSuccess) throw_failure(who, code);
  data_ = data, bytes_ = bytes;
}

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  const Relaxed relaxed;
  int code = 0;
  if (owner_ == nullptr) {
    code = cudaFree(data_);
  } else {
    try {
      const OnDevice on("memory", device_);
      code = synchronize_device();
    } catch (const Error&) {  // nothing can take it here
    }
  }
  if (code != 0) (void)cudaGetLastError();
}

namespace {

Place place_of_byte(const char* who, const void* data, int device, int* other) {
  cudaPointerAttributes found{};
  if (const cudaError_t code = noted("cudaPointerGetAttributes", cudaPointerGetAttributes(&found, data));
      code == cudaErrorInvalidValue) {
    // An older driver reports this error for memory that CUDA does not know. Clear it, because it is no failure here.
    (void)cudaGetLastError();
    return Place::kNoDeviceMemory;
  } else if (code != cudaSuccess) {
    throw_failure(who, code);
  }
  if (found.type == cudaMemoryTypeHost) return Place::kPinnedHost;
  if (found.type != cudaMemoryTypeDevice && found.type != cudaMemoryTypeManaged) return Place::kNoDeviceMemory;
  if (found.type == cudaMemoryTypeDevice && found.device != device) {
    *other = found.device;
    return Place::kOtherDevice;
  }
  return Place::kDevice;
}

}  // namespace

Place place_of(const char* who, const void* data, size_t bytes, int device, int* other) {
  const Place first = place_of_byte(who, data, device, other);
  if (first != Place::kDevice || bytes <= 1) return first;
  return place_of_byte(who, static_cast<const char*>(data) + bytes - 1, device, other);
}

}  // namespace gradring::cuda
