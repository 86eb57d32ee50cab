// Stream-ordered memory, registration and functions of the host.
#include <sys/mman.h>

#include <cstdio>
#include <cstring>

#include "cuda/device.h"
#include "cuda/software/tests/apart.h"
#include "cuda/software/tests/plants.h"

namespace gradring::software {

namespace {

using namespace gradring::device;

constexpr int kCount = 256;

__global__ void set(int* to, int value) {
  const int64_t i = thread_in_grid();
  if (i < kCount) to[i] = value;
}
__global__ void add(const int* from, int* to) {
  const int64_t i = thread_in_grid();
  if (i < kCount) to[i] += from[i];
}

struct Report {
  int value = 0;
  bool calls = false;
  cudaError_t code = cudaSuccess;
};
void CUDART_CB tell(void* data) {
  auto* report = static_cast<Report*>(data);
  report->value = 7;
  void* memory = nullptr;
  if (report->calls) report->code = cudaMalloc(&memory, 16);
}

int streams(Plant plant) {
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t ready = nullptr, used = nullptr;
  OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  OK(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
  OK(cudaEventCreateWithFlags(&used, cudaEventDisableTiming));
  int *temporary = nullptr, *total = nullptr;
  OK(cudaMalloc(reinterpret_cast<void**>(&total), kCount * 4));
  OK(cudaMemset(total, 0, kCount * 4));
  OK(cudaDeviceSynchronize());
  for (int round = 0; round < 3; ++round) {
    OK(cudaMallocAsync(reinterpret_cast<void**>(&temporary), kCount * 4, a));
    OK(cudaEventRecord(ready, a));
    if (plant != kUsedBeforeAllocation) OK(cudaStreamWaitEvent(b, ready, 0));
    OK(LAUNCH(set, dim3(2), dim3(128), 0, b, temporary, round + 1));
    OK(LAUNCH(add, dim3(2), dim3(128), 0, b, temporary, total));
    OK(cudaEventRecord(used, b));
    if (plant != kFreedWhileInUse) OK(cudaStreamWaitEvent(a, used, 0));
    OK(cudaFreeAsync(temporary, a));
    if (plant == kFreedTwice) OK(cudaFreeAsync(temporary, a));
  }
  Report report;
  report.calls = plant == kCallInHostFunction;
  OK(cudaLaunchHostFunc(b, tell, &report));
  if (plant != kHostResultWithoutWait) OK(cudaStreamSynchronize(b));
  bool right = report.value == 7 && report.code == cudaSuccess;
  OK(cudaStreamSynchronize(b));
  OK(cudaStreamSynchronize(a));
  int got[kCount];
  OK(cudaMemcpy(got, total, sizeof got, plant == kWrongDirection ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost));
  for (int each : got) right &= each == 6;
  if (plant != kMemoryLeft) OK(cudaFree(total));
  if (plant == kUsedAfterFree) {
    OK(LAUNCH(set, dim3(2), dim3(128), 0, a, total, 1));
    OK(cudaStreamSynchronize(a));
  }
  OK(cudaEventDestroy(ready));
  OK(cudaEventDestroy(used));
  OK(cudaStreamDestroy(a));
  OK(cudaStreamDestroy(b));
  return right ? 0 : 2;
}

int registration(Plant plant) {
  constexpr size_t page = 4096;
  char* host = static_cast<char*>(mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::memset(host, 1, 4 * page);
  const size_t half = plant == kRegisteredSharedPage ? 2 * page + 64 : 2 * page;
  OK(cudaHostRegister(host, half, cudaHostRegisterDefault));
  if (plant == kRegisteredTwice) OK(cudaHostRegister(host, half, cudaHostRegisterDefault));
  OK(cudaHostRegister(host + half, 4 * page - half, cudaHostRegisterDefault));
  char* device = nullptr;
  cudaStream_t stream = nullptr;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  OK(cudaMalloc(reinterpret_cast<void**>(&device), 2 * page));
  const size_t from = plant == kCopyAcrossRegistrations ? page : 0;
  OK(cudaMemcpyAsync(device, host + from, 2 * page, cudaMemcpyHostToDevice, stream));
  if (plant == kPinnedWrittenDuringCopy) {  // a registered page is read when the copy runs
    for (int i = 0; i < 16; ++i) host[i] = static_cast<char>(2 + i % 2);  // no memset: GCC would expand it unchecked
  }
  char back[16];
  OK(cudaMemcpyAsync(back, device, sizeof back, cudaMemcpyDeviceToHost, stream));
  OK(cudaStreamSynchronize(stream));
  // Pageable memory is read at the call.
  char pageable[16];
  std::memset(pageable, 5, sizeof pageable);
  OK(cudaMemcpyAsync(device, pageable, sizeof pageable, cudaMemcpyHostToDevice, stream));
  std::memset(pageable, 6, sizeof pageable);
  char later[16];
  OK(cudaMemcpyAsync(later, device, sizeof later, cudaMemcpyDeviceToHost, stream));
  OK(cudaStreamSynchronize(stream));
  OK(cudaFree(device));
  OK(cudaStreamDestroy(stream));
  OK(cudaHostUnregister(host));
  OK(cudaHostUnregister(host + half));
  munmap(host, 4 * page);
  return back[3] == 1 && later[3] == 5 ? 0 : 2;
}

}  // namespace

int memory_program(Plant plant) {
  const int status = streams(plant) | registration(plant);
  if (status == 2) std::printf("wrong results\n");
  return status;
}

}  // namespace gradring::software
