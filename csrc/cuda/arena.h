// DeviceArena: an array of bytes in the memory of a device, which the host reads and writes by copies.
#pragma once

#include <cstddef>
#include <memory>

#include "cuda/memory.h"

namespace gradring::cuda {

class DeviceArena {
 public:
  // The memory is zeroed. Throws Error(kOutOfMemory) that names the bytes wanted and free; kUnavailable if a call fails.
  DeviceArena(int device, size_t bytes);
  // The same in memory of another allocator, which gets it back when `owner` dies: that is after all work that the device has when
  // this object dies, because the allocator may give it to work that is ordered with nothing of ours.
  DeviceArena(int device, size_t bytes, void* memory, std::shared_ptr<void> owner);
  ~DeviceArena();
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;

  int device() const noexcept { return device_; }
  std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

  // Copy a part behind all work that the device has, and return when it is copied. Throw Error if the part does not lie in the
  // arena, or if a call fails.
  void read(size_t offset, void* to, size_t bytes) const;
  void write(size_t offset, const void* from, size_t bytes);

 private:
  void clear();
  void require(size_t offset, size_t bytes) const;

  int device_;
  size_t size_;
  DeviceMemory memory_;
  std::byte* data_;
  std::shared_ptr<void> owner_;
};

}  // namespace gradring::cuda
