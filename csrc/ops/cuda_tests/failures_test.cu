// Makes every CUDA call of a path fail once, and checks: no crash, no leak, an error that names the call, and a device that is
// usable afterwards.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <doctest/doctest.h>

#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "cuda/devices.h"
#include "cuda/failure.h"
#include "cuda/memory.h"
#include "cuda/pool.h"
#include "cuda/software/sanitizers.h"
#include "cuda/software/tests/device_array.h"
#include "cuda/stream.h"
#include "cuda/strided.h"
#include "ops/products_cuda.h"
#include "runtime/status.h"

using namespace gradring;
using namespace gradring::cuda;
using gradring::testing::DeviceArray;

namespace {

// `path` returns "" if it succeeded, and a text that says what failed otherwise. It runs in a new process for each failure, and in
// one schedule after the other.
void sweep(const std::function<std::string()>& path) {
  testing::in_every_schedule([&](const software::Options&) { REQUIRE(path() == ""); });
  software::restart({});
  REQUIRE(path() == "");
  if (software::kThreadSanitizer)
    return;  // it needs seconds for each new process, in which no thread runs beside another
  const std::vector<software::Options> schedules = software::every_schedule();
  size_t tried = 0;
  for (const auto& [call, count] : software::calls()) {
    if (call == "run") continue;  // these are operations on the device: the next call reports their failure
    for (int number = 1; number <= count; ++number) {
      software::Options options = schedules[tried++ % schedules.size()];
      options.faults = {{call, number, cudaErrorNotPermitted}};
      const software::Outcome outcome = software::run_apart(options, [&] {
        const std::string said = path();
        const std::string again = path();  // runs without a fault, because each fault happens once
        std::printf("%s\n", said.c_str());
        return again.empty() ? 0 : 1;
      });
      INFO(software::name(options), " ", call, " ", number, " of ", count, ": ", outcome.said);
      // A failed call of cudaFree leaves memory behind, and is no error of the path.
      const bool frees = call == "cudaFree" || call == "cudaEventDestroy" || call == "cudaStreamDestroy";
      if (!frees) CHECK(outcome.status == 0);
      CHECK(outcome.status < 128);
    }
  }
  CHECK(tried > 0);
}

}  // namespace

TEST_CASE("finding and trying devices survives the failure of every call") {
  sweep([]() -> std::string {
    const Devices found = find_devices();
    if (found.problem.code != 0) return found.problem.call + ": " + found.problem.name;
    const Problem problem = try_device(0);
    return problem.code == 0 ? "" : problem.call + ": " + problem.name;
  });
}

TEST_CASE("memory of the device, and finding out where an array lies, survive the failure of every call") {
  sweep([]() -> std::string {
    try {
      const DeviceMemory memory("a batch", 4096);
      int other = 0;
      const Place place = place_of("add", memory.data(), memory.bytes(), 0, &other);
      return place == Place::kDevice ? "" : "another place";
    } catch (const Error& error) {
      const std::string said = error.what();
      const bool names =
          said.rfind("[a batch] cudaMalloc", 0) == 0 || said.rfind("[add] cudaPointerGetAttributes", 0) == 0;
      if (!names || cudaGetLastError() != cudaSuccess) std::abort();  // the parent sees the signal
      return said;
    }
  });
}

TEST_CASE("blocks of a pool, copies of views and the order of streams survive the failure of every call") {
  constexpr const char* kWho = "cuda.Array";
  sweep([&]() -> std::string {
    std::vector<float> rows(6), columns(6, -1.0f), copied(6, -1.0f);
    std::iota(rows.begin(), rows.end(), 0.0f);
    constexpr size_t kBytes = 6 * sizeof(float);
    const auto check = [&](int code) {
      if (code != 0) throw_failure(kWho, code);
    };
    try {
      const OnDevice on(kWho, 0);
      MemoryPool pool(0);
      const Stream first = make_stream(kWho), second = make_stream(kWho);
      MemoryPool::Block from = pool.take(kBytes, first.get()), to = pool.take(kBytes, first.get());
      check(copy(Way::kToDevice, from.memory.data(), rows.data(), kBytes, first.get()));
      const int64_t shape[] = {3, 2}, turned[] = {4, 12}, dense[] = {8, 4};
      check(queue_strided_copy({to.memory.data(), dense}, {from.memory.data(), turned}, shape, 2, 4, first.get()));
      pool.give(std::move(from), first.get());
      order(kWho, first.get(), second.get());
      // The block comes back for the other stream, which waits for its last use.
      MemoryPool::Block again = pool.take(kBytes, second.get());
      check(copy(Way::kOnDevice, again.memory.data(), to.memory.data(), kBytes, second.get()));
      check(copy(Way::kToHost, columns.data(), to.memory.data(), kBytes, second.get()));
      check(copy(Way::kToHost, copied.data(), again.memory.data(), kBytes, second.get()));
      check(synchronize(second.get()));
      pool.give(std::move(again), second.get());
      pool.give(std::move(to), second.get());
      (void)pool.trim();
    } catch (const Error& error) {
      const std::string said = error.what();
      const bool names = said.rfind("[cuda.Array] cuda", 0) == 0 || said.rfind("[memory] cuda", 0) == 0;
      if (!names || cudaGetLastError() != cudaSuccess) std::abort();  // the parent sees the signal
      return said;
    }
    return columns == std::vector<float>{0, 3, 1, 4, 2, 5} && copied == columns ? "" : "wrong numbers";
  });
}

TEST_CASE("a failure while devices are tried names the call") {
  for (const char* call :
       {"cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaSetDevice", "cudaMalloc", "cudaMemset", "cudaMemcpy"}) {
    software::Options options;
    options.faults = {{call, 1, cudaErrorNotPermitted}};
    software::restart(options);
    const Devices found = find_devices();
    const Problem problem = found.problem.code != 0 ? found.problem : try_device(0);
    CHECK(problem.call == call);
    CHECK(problem.code == cudaErrorNotPermitted);
    CHECK(software::leaks() == "");
  }
  software::restart({});
}

TEST_CASE("no memory is a code of its own, and the device is usable afterwards") {
  software::Options options;
  options.memory = 1;
  software::restart(options);
  CHECK(try_device(0).code == cudaErrorMemoryAllocation);
  software::restart({});
  CHECK(try_device(0).code == 0);
}

TEST_CASE("a choice of algorithms by timing survives the failure of every call") {
  const auto path = [](bool at_first_run) -> std::string {
    float* memory = nullptr;
    if (cudaMalloc(reinterpret_cast<void**>(&memory), 4096 * sizeof(float)) != cudaSuccess) return "cudaMalloc";
    constexpr CudaProduct kProduct{.m = 5, .n = 7, .k = 9, .lda = 9, .ldb = 7, .ldc = 7};
    int code = static_cast<int>(cudaMemset(memory, 0, 4096 * sizeof(float)));
    try {
      Products products(software_cublaslt(), "one", 1024);
      products.set_tuning(at_first_run);
      const CudaQueue queue{.processors = 2};
      if (code == 0) {
        code = at_first_run ? products.run(kProduct, memory, memory + 64, memory + 256, false, queue, memory + 1024)
                            : products.tune(kProduct, memory, memory + 64, memory + 256, queue, memory + 1024);
      }
    } catch (const Error&) {  // the library has no handle to give
      code = kLibraryError;
    }
    (void)cudaDeviceSynchronize();
    (void)cudaFree(memory);
    return code == 0 ? "" : "code " + std::to_string(code);
  };
  sweep([&] { return path(false); });
  sweep([&] { return path(true); });
}
#endif
