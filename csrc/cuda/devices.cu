#include "cuda/device.h"
#include "cuda/devices.h"

namespace gradring::cuda {

namespace {

__global__ void add_one(int* number) { number[threadIdx.x] += 1; }

Problem problem_of(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return {};
  (void)cudaGetLastError();
  return {static_cast<int>(code), call, cudaGetErrorName(code), cudaGetErrorString(code)};
}

}  // namespace

Devices find_devices() {
  Devices found;
#ifdef GRADRING_SOFTWARE_DEVICE
  found.software = true;
#endif
  (void)cudaDriverGetVersion(&found.driver_version);
  (void)cudaRuntimeGetVersion(&found.runtime_version);
  int count = 0;  // a call that fails does not set it
  found.problem = problem_of(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  for (int i = 0; i < count && found.problem.code == 0; ++i) {
    cudaDeviceProp properties{};
    found.problem = problem_of(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    found.devices.push_back({properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                             properties.totalGlobalMem});
  }
  return found;
}

Problem try_device(int device) {
  int before = 0;
  if (Problem p = problem_of(cudaGetDevice(&before), "cudaGetDevice"); p.code != 0) return p;
  if (Problem p = problem_of(cudaSetDevice(device), "cudaSetDevice"); p.code != 0) return p;
  int* number = nullptr;
  int got = 0;
  Problem problem = problem_of(cudaMalloc(reinterpret_cast<void**>(&number), sizeof got), "cudaMalloc");
  if (problem.code == 0) {
    problem = problem_of(cudaMemset(number, 0, sizeof got), "cudaMemset");
    if (problem.code == 0) problem = problem_of(LAUNCH(add_one, dim3(1), dim3(1), 0, nullptr, number), "launch");
    if (problem.code == 0) {
      problem = problem_of(cudaMemcpy(&got, number, sizeof got, cudaMemcpyDeviceToHost), "cudaMemcpy");
    }
    if (problem.code == 0 && got != 1) problem = {-1, "add_one", "wrong result", "the device added wrongly"};
    (void)cudaFree(number);
  }
  (void)cudaSetDevice(before);
  return problem;
}

}  // namespace gradring::cuda
