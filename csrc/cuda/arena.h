// DeviceArena: an array of bytes in the memory of a device, which the host reads and writes by copies.
#pragma once

#include <cstddef>

#include "cuda/memory.h"

namespace gradring::cuda {

class DeviceArena {
 public:
  // The memory is zeroed, and the lender's if that has some. Throws Error(kOutOfMemory) that names the bytes wanted and free;
  // kUnavailable if a call fails.
  DeviceArena(int device, size_t bytes, const Lender& lender = nullptr);
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;

  int device() const noexcept { return device_; }
  std::byte* data() const noexcept { return static_cast<std::byte*>(memory_.data()); }
  size_t size() const noexcept { return size_; }

  // Copy a part behind all work that the device has, and return when it is copied. Throw Error if the part does not lie in the
  // arena, or if a call fails.
  void read(size_t offset, void* to, size_t bytes) const;
  void write(size_t offset, const void* from, size_t bytes);

 private:
  void require(size_t offset, size_t bytes) const;

  int device_;
  size_t size_;
  DeviceMemory memory_;
};

}  // namespace gradring::cuda
