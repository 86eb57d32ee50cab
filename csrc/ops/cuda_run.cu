#include <string>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/memory.h"
#include "ops/cuda_run.h"
#include "runtime/status.h"

namespace gradring {

namespace {

void check_place(const OpCall& call, const char* name, const void* data, size_t bytes, int device) {
  if (bytes == 0) return;
  int other = 0;
  const std::string must = ": must be in the memory of cuda:" + std::to_string(device);
  switch (cuda::place_of(call.name, data, bytes, device, &other)) {
    case cuda::Place::kDevice: return;
    case cuda::Place::kOtherDevice: refuse(call, name + (" is on cuda:" + std::to_string(other)) + must + "; copy it");
    case cuda::Place::kPinnedHost:
      refuse(call, name + std::string(" is in the host's pinned memory") + must + "; copy it");
    case cuda::Place::kNoDeviceMemory:
      refuse(call, name + std::string(" is in the host's memory, was freed, or ends outside its memory") + must);
  }
}

std::string operands_text(const OpCall& call) {
  std::string text;
  for (int i = 0; i < static_cast<int>(call.op->operands.size()); ++i) {
    if (!call[i]) continue;
    text += (text.empty() ? "" : ", ") + std::string(call.operand_name(i)) + " " + dtype_name(call[i].dtype) +
            shape_text(call[i]);
  }
  return text;
}

}  // namespace

CudaRun prepare_cuda_call(const OpCall& call, int device) {
  check_call(call, true);
  const CudaKernel* kernel = cuda_kernel(*call.op);
  const CudaRun run = kernel ? kernel->choose(call) : nullptr;
  if (!run) {
    const char* lack = kernel ? "has no CUDA kernel for " : "has no CUDA kernel; it was called with ";
    throw Error(Code::kUnavailable,
                "[" + std::string(call.name) + "] " + lack + operands_text(call) + ": use device='cpu'");
  }
  for (int i = 0; i < static_cast<int>(call.op->operands.size()); ++i) {
    const Tensor& each = call[i];
    if (!each) continue;
    const bool field = call.op->operands[static_cast<size_t>(i)].step != StepField::kNone;
    const size_t size = size_of(each.dtype);
    check_place(call, call.operand_name(i), each.data, (field ? 1 : static_cast<size_t>(each.elements())) * size,
                device);
    if (reinterpret_cast<uintptr_t>(each.data) % size != 0 && each.elements() > 0) {
      refuse(call, call.operand_name(i) + std::string(" begins at an address that is no multiple of ") +
                       std::to_string(size) + ": must be aligned to its dtype, " + dtype_name(each.dtype));
    }
  }
  if (call.step) check_place(call, "the step record", call.step, sizeof(StepRecord), device);
  return run;
}

size_t cuda_scratch_bytes(const OpCall& call, const CudaQueue& queue) noexcept {
  const CudaKernel* kernel = cuda_kernel(*call.op);
  return kernel && kernel->scratch ? kernel->scratch(call, queue) : 0;
}

void run_cuda_call(CudaRun run, const OpCall& call, const CudaQueue& queue) {
  if (const int code = run(call, queue); code != 0) cuda::throw_failure(call.name, code);
}

}  // namespace gradring
