#include "ops/cuda_kernels.h"

#include <doctest/doctest.h>

#include <string>

#include "runtime/status.h"

namespace gradring {

namespace {

int first(const OpCall&, const CudaQueue&) noexcept { return 1; }
int second(const OpCall&, const CudaQueue&) noexcept { return 2; }

constexpr CudaKernel kOld[] = {{.op = "add", .choose = always_cuda<first>}};
constexpr CudaKernel kNew[] = {{.op = "add",
                                .choose = by_real_cuda<first, second>,
                                .scratch = [](const OpCall& call, const CudaQueue& queue) noexcept -> size_t {
                                  return static_cast<size_t>(call[0].elements() * queue.processors);
                                }},
                               {.op = "copy", .choose = always_cuda<second>}};

}  // namespace

TEST_CASE("an op has no CUDA kernel before one is registered") {
  for (const OpSchema* op : all_ops()) CHECK(cuda_kernel(*op) == nullptr);
}

TEST_CASE("a registered kernel lies in its op's slot, and a later one takes its place") {
  const OpSchema &add = *find_schema("add"), &copy = *find_schema("copy");
  register_cuda_kernels(kOld);
  CHECK(cuda_kernel(add) == kOld);
  CHECK(cuda_kernel(copy) == nullptr);
  register_cuda_kernels(kNew);
  REQUIRE(cuda_kernel(add) == kNew);
  CHECK(cuda_kernel(copy) == kNew + 1);
  const int64_t shape[] = {3, 5};
  Tensor x{nullptr, shape, nullptr, 2, Dtype::kFloat32};
  OpCall call{.op = &add, .tensors = &x};
  CHECK((cuda_kernel(add)->choose(call) == first));
  CHECK(cuda_kernel(add)->scratch(call, {.processors = 4}) == 60);
  x.dtype = Dtype::kFloat64;
  CHECK((cuda_kernel(add)->choose(call) == second));
  x.dtype = Dtype::kInt64;
  CHECK((cuda_kernel(add)->choose(call) == nullptr));
  remove_cuda_kernel(add);
  remove_cuda_kernel(copy);
  CHECK(cuda_kernel(add) == nullptr);
  CHECK(cuda_kernel(copy) == nullptr);
}

TEST_CASE("kernels of an unknown op are refused by name, and change no slot") {
  const CudaKernel wrong[] = {{.op = "add", .choose = always_cuda<first>}, {.op = "sub", .choose = always_cuda<first>}};
  CHECK_THROWS_WITH_AS(register_cuda_kernels(wrong), doctest::Contains("sub"), Error);
  CHECK(cuda_kernel(*find_schema("add")) == nullptr);
  const CudaKernel empty[] = {{.op = "add"}};
  CHECK_THROWS_AS(register_cuda_kernels(empty), Error);
}

}  // namespace gradring
