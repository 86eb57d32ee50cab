// Where a CUDA kernel is queued, in words that need no CUDA header.
#pragma once

namespace gradring {

struct CudaQueue {
  void* stream = nullptr;  // a cudaStream_t
  int processors = 1;      // of the device
};

}  // namespace gradring
