// Memory of a CUDA device, in types that need no CUDA header.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace gradring::cuda {

// Memory of another allocator, such as CuPy's pool, which gets it back when `owner` dies. null: it has none to give.
struct BorrowedMemory {
  void* data = nullptr;
  std::shared_ptr<void> owner;
};
using Lender = std::function<BorrowedMemory(size_t bytes)>;

// An array of bytes on the current device, 256-byte aligned. Freeing it waits for all work that the device has, even if another
// allocator has lent it, because that may give it to work that is ordered with nothing of ours.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Asks the lender first, if there is one, and waits for all work of the device before it uses what it gets. Throws
  // Error(kOutOfMemory) that names `who`, the bytes that it wants and those that are free; nothing has changed then.
  DeviceMemory(const std::string& who, size_t bytes, const Lender& lender = nullptr);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        owner_(std::move(other.owner_)),
        device_(other.device_) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(owner_, other.owner_);
    std::swap(device_, other.device_);
    return *this;
  }

  void* data() const noexcept { return data_; }
  size_t bytes() const noexcept { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::shared_ptr<void> owner_;  // null: CUDA's own
  int device_ = 0;               // where the owner's memory is
};

enum class Place { kDevice, kOtherDevice, kPinnedHost, kNoDeviceMemory };

// Finds out where an array lies: all of it in the memory of this device, or elsewhere. kNoDeviceMemory: in the host's
// memory, or it was freed. other: receives the number of the other device. Throws Error that names `who` if CUDA fails.
Place place_of(const char* who, const void* data, size_t bytes, int device, int* other);

}  // namespace gradring::cuda
