// The slot of an op's schema for CUDA. Device code lies in a module of its own, _cuda, which this library does not know:
// the module registers its kernels when it is loaded, and an op without one runs on CPUs alone.
//
// | variable    | writer                    | readers               | order            | why                              |
// |-------------|---------------------------|-----------------------|------------------|----------------------------------|
// | kernels[op] | _cuda, when it is loaded  | executors' makers     | release, acquire | its fields are seen with it      |
#pragma once

#include <cstddef>
#include <span>

#include "gradring/export.h"
#include "ops/cuda_queue.h"
#include "ops/cuda_spans.h"
#include "ops/op.h"

namespace gradring {

// Queues a call on queue.stream, and returns a code of the CUDA runtime; 0: it is queued. The tensors' `data` are addresses
// in device memory; for an operand that is a field of the step record, `data` is the field's address in the device's own
// StepRecord, to which `call.step` points; that record's `samples` and `rates` point to device memory, too. Shapes, strides
// and attributes are host memory, to be read before the function returns. The kernel changes nothing if that record has a
// fault. The function allocates nothing and does not wait, so that a stream can capture it.
using CudaRun = int (*)(const OpCall& call, const CudaQueue& queue) noexcept;

// Queues one launch over many arrays. `call` is that of one of them, for its attributes and dtypes; otherwise as CudaRun.
using CudaSpansRun = int (*)(const OpCall& call, const CudaQueue& queue, const CudaSpans& spans) noexcept;

// What an optimizer's op has to update many parameters by one launch.
struct CudaSpansKernel {
  // Writes the arrays of a call into a row of the table.
  void (*fill)(const OpCall& call, CudaSpan* span) noexcept = nullptr;
  // The function for the dtype and the operands of a call, by which all calls of a table must agree; null if there is none.
  CudaSpansRun (*choose)(const OpCall& call) noexcept = nullptr;
};

struct CudaKernel {
  const char* op = nullptr;
  // The kernel for the dtypes, shapes and attributes of this call; null if there is none.
  CudaRun (*choose)(const OpCall& call) noexcept = nullptr;
  // How many bytes of device memory the call needs at queue.scratch; null: none.
  size_t (*scratch)(const OpCall& call, const CudaQueue& queue) noexcept = nullptr;
  CudaSpansKernel spans = {};
};

// Puts each kernel into its op's slot, and replaces the one that was there. The kernels must stay where they are.
// If there is no such op, it throws Error and changes no slot.
GRADRING_API void register_cuda_kernels(std::span<const CudaKernel> kernels);
// Empties the slot of an op.
void remove_cuda_kernel(const OpSchema& op) noexcept;
// Returns the kernel in an op's slot; null if the op has none, or if _cuda is not loaded.
GRADRING_API const CudaKernel* cuda_kernel(const OpSchema& op) noexcept;

// A function for CudaKernel::choose that chooses one kernel for all calls.
template <CudaRun kRun>
CudaRun always_cuda(const OpCall&) noexcept {
  return kRun;
}

// A function for CudaKernel::choose that chooses between kernels for the two real dtypes by the dtype of operand kOperand.
template <CudaRun kFloat, CudaRun kDouble, int kOperand = 0>
CudaRun by_real_cuda(const OpCall& call) noexcept {
  switch (call[kOperand].dtype) {
    case Dtype::kFloat32: return kFloat;
    case Dtype::kFloat64: return kDouble;
    default: return nullptr;
  }
}

// The same with a third kernel, for 16-bit floats.
template <CudaRun kFloat, CudaRun kDouble, CudaRun kNarrow>
CudaRun by_product_cuda(const OpCall& call) noexcept {
  return is_narrow(call[0].dtype) ? kNarrow : by_real_cuda<kFloat, kDouble>(call);
}

// Does the same for launches over many arrays.
template <CudaSpansRun kFloat, CudaSpansRun kDouble>
CudaSpansRun spans_by_real(const OpCall& call) noexcept {
  switch (call[0].dtype) {
    case Dtype::kFloat32: return kFloat;
    case Dtype::kFloat64: return kDouble;
    default: return nullptr;
  }
}

}  // namespace gradring
