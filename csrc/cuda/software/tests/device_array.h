// Helpers for tests of kernels: arrays at chosen offsets, and the schedules in which a test runs. Only *.cu include it. A GPU has
// no choice of schedule: a test runs on it twice.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cuda/device.h"
#ifdef GRADRING_SOFTWARE_DEVICE
#include "cuda/software/tests/apart.h"
#else
namespace gradring::software {
struct Options {};
inline void restart(const Options&) {}
inline std::string leaks() { return ""; }
inline std::map<std::string, int> calls() { return {}; }
inline std::vector<Options> every_schedule(int = 0) { return std::vector<Options>(2); }
inline std::vector<Options> schedules_of(int) { return every_schedule(); }
inline std::string name(const Options&) { return "a card"; }
}  // namespace gradring::software
#endif

namespace gradring::testing {

// An array of device memory whose first element lies `offset` elements after a 16-byte boundary, surrounded by poison.
template <class T>
class DeviceArray {
 public:
  DeviceArray(const std::vector<T>& values, size_t offset) : size_(values.size()), offset_(offset) {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&memory_), (offset + size_ + 1) * sizeof(T)) == cudaSuccess);
    REQUIRE(cudaMemset(memory_, 0xff, (offset + size_ + 1) * sizeof(T)) == cudaSuccess);
    if (size_ > 0) {
      REQUIRE(cudaMemcpy(data(), values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
    }
  }
  ~DeviceArray() { (void)cudaFree(memory_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return memory_ + offset_; }
  // Returns the values, and checks that the poison before and after them is intact.
  std::vector<T> read() const {
    std::vector<T> all(offset_ + size_ + 1);
    REQUIRE(cudaMemcpy(all.data(), memory_, all.size() * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    const std::vector<unsigned char> poison(sizeof(T), 0xff);
    for (size_t i = 0; i < offset_; ++i) REQUIRE(std::memcmp(&all[i], poison.data(), sizeof(T)) == 0);
    REQUIRE(std::memcmp(&all.back(), poison.data(), sizeof(T)) == 0);
    return {all.begin() + static_cast<int64_t>(offset_), all.end() - 1};
  }

 private:
  T* memory_ = nullptr;
  size_t size_, offset_;
};

// Runs a test in eager, lazy and ten seeded schedules, each time on a new device, on which the test must leave nothing. It gets
// the options, so that it can start a device that has less.
template <class Test>
void in_every_schedule(const Test& test) {
  for (const software::Options& options : software::every_schedule()) {
    INFO(software::name(options));
    software::restart(options);
    test(options);
    CHECK(software::leaks() == "");
  }
}

}  // namespace gradring::testing
