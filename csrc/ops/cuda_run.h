// A call of an op on a CUDA device, with errors that name the op and the operand or CUDA call. An executor prepares each call once, and
// runs it at every step. No CUDA header is needed.
#pragma once

#include "ops/cuda_kernels.h"

namespace gradring {

// Checks the call as check_call does, and that each operand lies in the memory of this device, aligned to its dtype; the tensors'
// `data` and call.step are addresses in device memory. Returns the kernel. Throws Error, for example if the op has no kernel
// for the call, or if _cuda is not loaded.
CudaRun prepare_cuda_call(const OpCall& call, int device);

// How many bytes the call needs at queue.scratch.
size_t cuda_scratch_bytes(const OpCall& call, const CudaQueue& queue) noexcept;

// Queues the call. Throws Error that names the op and the CUDA call that failed; what was queued before stays queued.
void run_cuda_call(CudaRun run, const OpCall& call, const CudaQueue& queue);

}  // namespace gradring
