#include "cuda/device.h"
#include "cuda/pinning.h"
#include "cuda/stream.h"

namespace gradring::cuda {

Status HostPinner::pin(void* address, size_t bytes) noexcept {
  const Relaxed relaxed;
  const cudaError_t code = noted("cudaHostRegister", cudaHostRegister(address, bytes, cudaHostRegisterPortable));
  if (code == cudaSuccess) return {};
  (void)cudaGetLastError();
  return {code == cudaErrorMemoryAllocation ? Code::kOutOfMemory : Code::kUnavailable,
          "[pin] cudaHostRegister of %zu bytes: %s (%s, %d)",
          bytes,
          cudaGetErrorString(code),
          cudaGetErrorName(code),
          static_cast<int>(code)};
}

// A failure leaves nothing to do: the device is lost, or the process was forked and has no registrations.
void HostPinner::unpin(void* address) noexcept {
  const Relaxed relaxed;
  if (cudaHostUnregister(address) != cudaSuccess) (void)cudaGetLastError();
}

void offer_host_pinner() noexcept {
  static HostPinner pinner;
  offer_pinner(&pinner);
}

}  // namespace gradring::cuda
