// Registration of the host's memory with CUDA.
#pragma once

#include "runtime/pinning.h"

namespace gradring::cuda {

// Registers pages with cudaHostRegister, for all devices of the process.
class HostPinner final : public Pinner {
 public:
  Status pin(void* address, size_t bytes) noexcept override;
  void unpin(void* address) noexcept override;
};

// Offers a HostPinner to the process, which stays. It touches no device before it pins.
void offer_host_pinner() noexcept;

}  // namespace gradring::cuda
