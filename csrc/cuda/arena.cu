#include <algorithm>
#include <string>
#include <utility>

#include "cuda/arena.h"
#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/stream.h"
#include "runtime/status.h"

namespace gradring::cuda {

namespace {

constexpr const char* kWho = "arena";

void check(const char* call, cudaError_t code) {
  if (noted(call, code) != cudaSuccess) throw_failure(kWho, code);
}

}  // namespace

DeviceArena::DeviceArena(int device, size_t bytes, const Lender& lender) : device_(device), size_(bytes) {
  const OnDevice on(kWho, device);
  memory_ = DeviceMemory(kWho, std::max<size_t>(bytes, 1), lender);
  const Relaxed relaxed;
  if (size_ > 0) check("cudaMemset", cudaMemset(data(), 0, size_));
  // A fill may end after the call, and streams of ours do not wait for the legacy stream. To wait for the device would end the
  // captures of all streams.
  check("cudaStreamSynchronize", cudaStreamSynchronize(nullptr));
}

void DeviceArena::require(size_t offset, size_t bytes) const {
  if (offset <= size_ && bytes <= size_ - offset) return;
  throw Error(Code::kInvalidArgument, "[arena] " + std::to_string(bytes) + " bytes from byte " +
                                          std::to_string(offset) + " on: must lie within its " + std::to_string(size_));
}

void DeviceArena::read(size_t offset, void* to, size_t bytes) const {
  require(offset, bytes);
  const OnDevice on(kWho, device_);
  check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  check("cudaMemcpy", cudaMemcpy(to, data() + offset, bytes, cudaMemcpyDeviceToHost));
}

void DeviceArena::write(size_t offset, const void* from, size_t bytes) {
  require(offset, bytes);
  const OnDevice on(kWho, device_);
  check("cudaDeviceSynchronize", cudaDeviceSynchronize());
  check("cudaMemcpy", cudaMemcpy(data() + offset, from, bytes, cudaMemcpyHostToDevice));
}

}  // namespace gradring::cuda
