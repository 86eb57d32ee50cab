// A program that works like training: a pinned ring, a copy stream, a step captured with two branches, results read at the end.
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "cuda/device.h"
#include "cuda/software/tests/apart.h"
#include "cuda/software/tests/plants.h"

namespace gradring::software {

namespace {

using namespace gradring::device;

__global__ void twice(const float* x, float* y, int n) {
  const int64_t i = thread_in_grid();
  if (i < n) y[i] = 2 * x[i];
}
__global__ void add_sum(const float* x, float* total, int n) {
  SHARED_ARRAY(float, parts, kMostWarps);
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) sum += x[i];
  sum = block_reduce(sum, parts, Plus{});
  if (threadIdx.x == 0) *total += sum;
}
__global__ void keep_largest(const float* x, float* largest, int n) {
  if (threadIdx.x > 0) return;
  for (int i = 0; i < n; ++i) {
    if (x[i] > *largest) *largest = x[i];
  }
}

constexpr int kCount = 300, kSlots = 3, kSteps = 12;

struct Feed {
  float *ring = nullptr, *results = nullptr;  // pinned
  float *x[2] = {}, *y = nullptr, *out = nullptr;
  cudaStream_t copy = nullptr, compute = nullptr, side = nullptr;
  cudaEvent_t copied[kSlots] = {}, arrived[2] = {}, consumed[2] = {}, fork = nullptr, join = nullptr;
  cudaGraphExec_t step[2] = {};
};

int make(Feed& f, Plant plant) {
  OK(cudaMallocHost(reinterpret_cast<void**>(&f.ring), kCount * kSlots * 4));
  OK(cudaMallocHost(reinterpret_cast<void**>(&f.results), 8));
  for (float*& each : f.x) OK(cudaMalloc(reinterpret_cast<void**>(&each), kCount * 4));
  OK(cudaMalloc(reinterpret_cast<void**>(&f.y), kCount * 4));
  OK(cudaMalloc(reinterpret_cast<void**>(&f.out), 8));
  for (cudaStream_t* each : {&f.copy, &f.side}) OK(cudaStreamCreateWithFlags(each, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&f.compute, plant == kLegacyOrderAssumed ? cudaStreamDefault : cudaStreamNonBlocking));
  for (cudaEvent_t& each : f.copied) OK(cudaEventCreateWithFlags(&each, cudaEventDisableTiming));
  for (cudaEvent_t& each : f.arrived) OK(cudaEventCreateWithFlags(&each, cudaEventDisableTiming));
  for (cudaEvent_t& each : f.consumed) OK(cudaEventCreateWithFlags(&each, cudaEventDisableTiming));
  for (cudaEvent_t* each : {&f.fork, &f.join}) OK(cudaEventCreateWithFlags(each, cudaEventDisableTiming));
  return 0;
}

int capture(Feed& f, int b, Plant plant) {
  cudaGraph_t graph = nullptr;
  OK(cudaStreamBeginCapture(f.compute, cudaStreamCaptureModeThreadLocal));
  OK(LAUNCH(twice, dim3(3), dim3(128), 0, f.compute, f.x[b], f.y, kCount));
  OK(cudaEventRecord(f.fork, f.compute));
  OK(cudaStreamWaitEvent(f.side, f.fork, 0));
  OK(LAUNCH(add_sum, dim3(1), dim3(128), 0, f.compute, f.y, f.out, kCount));
  OK(LAUNCH(keep_largest, dim3(1), dim3(32), 0, f.side, f.y, plant == kBranchesShareAWord ? f.out : f.out + 1, kCount));
  if (plant != kUnjoinedCapture) {
    OK(cudaEventRecord(f.join, f.side));
    OK(cudaStreamWaitEvent(f.compute, f.join, 0));
  }
  if (plant == kAllocationInCapture) {
    void* late = nullptr;
    (void)cudaMalloc(&late, 4);
  }
  if (plant == kSynchronizeInCapture) (void)cudaStreamSynchronize(f.compute);
  OK(cudaStreamEndCapture(f.compute, &graph));
  OK(cudaGraphInstantiate(&f.step[b], graph, 0));
  OK(cudaGraphDestroy(graph));
  return 0;
}

int destroy(Feed& f, Plant plant) {
  for (cudaGraphExec_t each : f.step) OK(cudaGraphExecDestroy(each));
  for (cudaEvent_t each :
       {f.copied[0], f.copied[1], f.copied[2], f.arrived[0], f.arrived[1], f.consumed[0], f.consumed[1], f.fork})
    OK(cudaEventDestroy(each));
  if (plant != kForgottenEvent) OK(cudaEventDestroy(f.join));
  for (cudaStream_t each : {f.copy, f.compute, f.side}) OK(cudaStreamDestroy(each));
  for (float* each : {f.x[0], f.x[1], f.y, f.out}) OK(cudaFree(each));
  OK(cudaFreeHost(f.ring));
  OK(cudaFreeHost(f.results));
  return 0;
}

}  // namespace

int feed_program(Plant plant) {
  Feed f;
  if (make(f, plant) != 0) return 1;
  if (plant == kLegacyOrderAssumed) {
    // The bug: the program relies on a non-blocking stream to wait for the legacy stream.
    OK(cudaMemsetAsync(f.out, 0, 8, nullptr));
    OK(LAUNCH(keep_largest, dim3(1), dim3(32), 0, f.side, f.out, f.out + 1, 1));
    OK(cudaStreamSynchronize(f.side));
  }
  OK(cudaMemsetAsync(f.out, 0, 8, f.compute));
  for (int b = 0; b < 2; ++b) {
    if (capture(f, b, plant) != 0) return 1;
  }
  std::mt19937 random(1);
  double expected = 0;
  float largest = 0;
  for (int t = 0; t < kSteps; ++t) {
    const int slot = t % kSlots, b = t % 2;
    if (plant != kSlotReusedTooEarly) OK(cudaEventSynchronize(f.copied[slot]));
    float* const from = f.ring + slot * kCount;
    for (int i = 0; i < kCount; ++i) {
      from[i] = static_cast<float>(random() % 100);
      expected += 2 * from[i];
      largest = std::max(largest, 2 * from[i]);
    }
    if (plant != kDeviceSlotOverwritten) OK(cudaStreamWaitEvent(f.copy, f.consumed[b], 0));
    OK(cudaMemcpyAsync(f.x[b], from, kCount * 4, cudaMemcpyHostToDevice, f.copy));
    OK(cudaEventRecord(f.copied[slot], f.copy));
    OK(cudaEventRecord(f.arrived[b], f.copy));
    if (plant != kMissingArrivalWait) OK(cudaStreamWaitEvent(f.compute, f.arrived[b], 0));
    OK(cudaGraphLaunch(f.step[b], f.compute));
    OK(cudaEventRecord(f.consumed[b], f.compute));
  }
  OK(cudaMemcpyAsync(f.results, f.out, 8, cudaMemcpyDeviceToHost, f.compute));
  if (plant != kResultReadTooEarly) OK(cudaStreamSynchronize(f.compute));
  const bool right = f.results[0] == static_cast<float>(expected) && f.results[1] == largest;
  OK(cudaStreamSynchronize(f.compute));
  OK(cudaStreamSynchronize(f.copy));
  if (destroy(f, plant) != 0) return 1;
  if (!right) std::printf("wrong results\n");
  return right ? 0 : 2;
}

}  // namespace gradring::software
