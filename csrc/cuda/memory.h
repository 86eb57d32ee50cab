// Memory of a CUDA device, in types that need no CUDA header.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace gradring::cuda {

// An array of bytes on the current device, 256-byte aligned. Freeing it waits for the device.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Throws Error(kOutOfMemory) that names `who`, the bytes that it wants and those that are free; nothing has changed then.
  DeviceMemory(const std::string& who, size_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void* data() const noexcept { return data_; }
  size_t bytes() const noexcept { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

enum class Place { kDevice, kOtherDevice, kPinnedHost, kNoDeviceMemory };

// Finds out where an array lies: all of it in the memory of this device, or elsewhere. kNoDeviceMemory: in the host's
// memory, or it was freed. other: receives the number of the other device. Throws Error that names `who` if CUDA fails.
Place place_of(const char* who, const void* data, size_t bytes, int device, int* other);

}  // namespace gradring::cuda
