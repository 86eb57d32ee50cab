// adam_update and adamw_update on a CUDA device: one launch over flat arenas.
#pragma once

#include <cstdint>

#include "ops/cuda_queue.h"

namespace gradring {

// What changes from step to step, in device memory: one captured graph serves all steps.
struct AdamCudaStep {
  double lr = 1e-3;
  double step_size = 1e-3;  // lr / (1 - beta1^step)
  double root = 1;          // 1 / sqrt(1 - beta2^step)
  double grad_scale = 1;    // clipping, 1 / count
  int32_t fault = 0;        // other than 0: nothing is changed
};

// As AdamArguments; every pointer is of device memory.
template <class T>
struct AdamCudaArguments {
  int64_t n = 0;
  T* param = nullptr;
  const T* grad = nullptr;
  T* m = nullptr;
  T* v = nullptr;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = false;  // adamw
  const AdamCudaStep* step = nullptr;
};

// float and double. Returns a code of the CUDA runtime; 0: queued.
template <class T>
int adam_cuda(const AdamCudaArguments<T>& arguments, const CudaQueue& queue);

}  // namespace gradring
