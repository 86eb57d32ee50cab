// Tests what a CUDA device refuses: no driver, an old one, no such device, no memory, operands that lie elsewhere,
// launches beyond the limits, a process that was forked. Each error names the op or the call, and what is usable stays
// usable.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/devices.h"
#include "cuda/failure.h"
#include "cuda/memory.h"
#include "cuda/software/tests/device_array.h"
#include "ops/cuda_run.h"
#include "ops/register_cuda.h"
#include "runtime/status.h"

using namespace gradring;
using namespace gradring::cuda;
using gradring::testing::DeviceArray;
using gradring::testing::in_every_schedule;

namespace {

// A call of add with seven numbers; tests put other operands into it.
struct Add {
  int64_t shape[1] = {7}, strides[1] = {4};
  Tensor tensors[3];
  OpCall call;

  Add(void* a, void* b, void* y) {
    void* data[] = {a, b, y};
    for (int i = 0; i < 3; ++i) tensors[i] = {data[i], shape, strides, 1, Dtype::kFloat32};
    call.op = find_schema("add"), call.name = "add", call.tensors = tensors;
  }
};

template <class F>
std::string error_of(const F& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Arrays {
  DeviceArray<float> a{std::vector<float>(8, 1), 0}, b{std::vector<float>(8, 2), 0}, y{std::vector<float>(8, 0), 0};
};

void check_usable() {
  const Arrays arrays;
  Add add(arrays.a.data(), arrays.b.data(), arrays.y.data());
  run_cuda_call(prepare_cuda_call(add.call, 0), add.call, {.processors = 2});
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(arrays.y.read()[6] == 3);
}

__global__ void nothing() {}

}  // namespace

TEST_CASE("an operand that is not in the device's memory is named, with the place where it is") {
  in_every_schedule([](software::Options options) {
    register_all_cuda_kernels();
    options.devices = 2;
    software::restart(options);
    const Arrays arrays;
    float host[8] = {};
    void *pinned = nullptr, *other = nullptr, *freed = nullptr;
    REQUIRE(cudaMallocHost(&pinned, 64) == cudaSuccess);
    REQUIRE(cudaMalloc(&freed, 64) == cudaSuccess);
    REQUIRE(cudaFree(freed) == cudaSuccess);
    REQUIRE(cudaSetDevice(1) == cudaSuccess);
    REQUIRE(cudaMalloc(&other, 64) == cudaSuccess);
    REQUIRE(cudaSetDevice(0) == cudaSuccess);
    const auto with = [&](void* b) {
      Add add(arrays.a.data(), b, arrays.y.data());
      return error_of([&] { (void)prepare_cuda_call(add.call, 0); });
    };
    CHECK(with(arrays.b.data()) == "");
    CHECK(holds(with(host), "[add] b is in the host's memory"));
    CHECK(holds(with(host), "must be in the memory of cuda:0"));
    CHECK(holds(with(pinned), "[add] b is in the host's pinned memory"));
    CHECK(holds(with(other), "[add] b is on cuda:1"));
    CHECK(holds(with(freed), "[add] b is in the host's memory, was freed"));
    CHECK(holds(with(reinterpret_cast<char*>(arrays.b.data()) + 2),
                "[add] b begins at an address that is no multiple of 4"));
    CHECK(holds(with(arrays.b.data() + 4), "ends outside its memory"));
    REQUIRE(cudaFreeHost(pinned) == cudaSuccess);
    REQUIRE(cudaFree(other) == cudaSuccess);
    check_usable();
  });
}

TEST_CASE("a dtype that does not fit, and a call without a kernel, are refused by name") {
  in_every_schedule([](const software::Options&) {
    const Arrays arrays;
    Add add(arrays.a.data(), arrays.b.data(), arrays.y.data());
    add.tensors[1].dtype = Dtype::kFloat64;
    CHECK(holds(error_of([&] { (void)prepare_cuda_call(add.call, 0); }), "[add] a is float32, b is float64"));
    add.tensors[1].dtype = Dtype::kFloat32;
    const CudaKernel* kernel = cuda_kernel(*add.call.op);
    remove_cuda_kernel(*add.call.op);
    const std::string text = error_of([&] { (void)prepare_cuda_call(add.call, 0); });
    register_cuda_kernels({kernel, 1});
    CHECK(holds(text, "[add] has no CUDA kernel"));
    CHECK(holds(text, "a float32(7,)"));
    check_usable();
  });
}

TEST_CASE("a lack of memory names the bytes that are wanted and those that are free, and all is usable afterwards") {
  in_every_schedule([](software::Options options) {
    options.memory = 1 << 20;
    software::restart(options);
    {
      const DeviceMemory first("a model", 1 << 19);
      const std::string text = error_of([] { const DeviceMemory second("a batch", (1 << 19) + 4096); });
      CHECK(holds(text, "[a batch] cudaMalloc: out of memory"));
      CHECK(holds(text, std::to_string((1 << 19) + 4096) + " bytes are wanted"));
      CHECK(holds(text, " of 1048576 are free"));
      check_usable();
    }
    CHECK(software::leaks() == "");
    const DeviceMemory whole("a batch", 1 << 19);
    CHECK(whole.data() != nullptr);
  });
}

TEST_CASE("a launch beyond a block's limits is named, and the device is usable afterwards") {
  in_every_schedule([](const software::Options&) {
    int code = LAUNCH(nothing, dim3(1), dim3(2048), 0, nullptr);
    REQUIRE(code != 0);
    CHECK(holds(describe_failure(code), "cudaLaunchKernel: invalid configuration argument"));
    code = LAUNCH(nothing, dim3(1), dim3(32), size_t{1} << 20, nullptr);
    REQUIRE(code != 0);
    CHECK(holds(describe_failure(code), "cudaLaunchKernel: invalid argument"));
    CHECK(!holds(describe_failure(code), "lost"));
    code = device::allow_shared(nothing, size_t{1} << 20);
    REQUIRE(code != 0);
    CHECK(holds(describe_failure(code), "cudaFuncSetAttribute"));
    check_usable();
  });
}

TEST_CASE("without a driver, with an old one, or without such a device, the call and the reason are named") {
  software::Options none;
  none.devices = 0;
  software::restart(none);
  CHECK(find_devices().problem.name == "cudaErrorNoDevice");
  CHECK(try_device(0).code != 0);
  software::Options old;
  old.faults = {{"cudaGetDeviceCount", 1, cudaErrorInsufficientDriver}};
  software::restart(old);
  CHECK(find_devices().problem.name == "cudaErrorInsufficientDriver");
  software::restart({});
  CHECK(try_device(7).call == "cudaSetDevice");
  CHECK(try_device(7).name == "cudaErrorInvalidDevice");
  CHECK(try_device(0).code == 0);
}

TEST_CASE("a process that is forked after CUDA was used hears so, and its parent is not hurt") {
  in_every_schedule([](const software::Options&) {
    check_usable();
    const software::Outcome outcome = software::run_forked([] {
      const std::string text = error_of([] { const DeviceMemory memory("a batch", 64); });
      std::printf("%s\n", text.c_str());
      return holds(text, "[a batch] cudaMalloc") && holds(text, "forked") ? 0 : 1;
    });
    INFO(outcome.said);
    CHECK(outcome.status == 0);
    check_usable();
  });
}
#endif
