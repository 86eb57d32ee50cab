#include <string>

#include "cuda/cublaslt.h"
#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/stream.h"
#include "program/cuda/library.h"
#include "runtime/status.h"

namespace gradring::cuda {

namespace {

constexpr const char* kWho = "engine";

CublasLt table_of([[maybe_unused]] void* library) {
#ifdef GRADRING_SOFTWARE_DEVICE
  return software_cublaslt();
#else
  CublasLt table;
  if (library == nullptr) throw Error(Code::kUnavailable, "[engine] cuBLASLt is not loaded");
  if (const char* const missing = load_cublaslt(library, &table)) {
    throw Error(Code::kUnavailable, std::string("[engine] cuBLASLt has no ") + missing);
  }
  return table;
#endif
}

#ifdef GRADRING_SOFTWARE_DEVICE
constexpr size_t kWorkspace = 4096;
#else
constexpr size_t kWorkspace = size_t{32} << 20;  // what NVIDIA advises for Hopper
#endif

}  // namespace

int processors_of(int device) {
  int count = 0;
  const cudaError_t code = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  if (noted("cudaDeviceGetAttribute", code) != cudaSuccess) throw_failure(kWho, code);
  return count;
}

std::unique_ptr<Products> make_products(int device, void* library, bool tune, bool tf32) {
  cudaDeviceProp properties{};
  const cudaError_t code = cudaGetDeviceProperties(&properties, device);
  if (noted("cudaGetDeviceProperties", code) != cudaSuccess) throw_failure(kWho, code);
  const OnDevice on(kWho, device);
  auto products = std::make_unique<Products>(table_of(library), properties.name, kWorkspace, tf32);
  products->set_tuning(tune);
  return products;
}

}  // namespace gradring::cuda
