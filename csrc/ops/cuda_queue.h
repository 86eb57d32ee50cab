// Where a CUDA kernel is queued, in words that need no CUDA header.
#pragma once

namespace gradring {

struct CudaQueue {
  void* stream = nullptr;   // a cudaStream_t
  int processors = 1;       // how many multiprocessors the device has
  void* scratch = nullptr;  // device memory for this call alone, if its kernel asked for some
};

}  // namespace gradring
