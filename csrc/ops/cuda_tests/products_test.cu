// Tests that algorithms of products can be recorded, restored and chosen by timing, and that other devices' records are
// refused.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/software/tests/device_array.h"
#include "ops/cuda_run.h"
#include "ops/products_cuda.h"
#include "ops/register_cuda.h"

using namespace gradring;
using namespace gradring::cuda;
using gradring::testing::DeviceArray;
using gradring::testing::in_every_schedule;

namespace {

constexpr CudaProduct kProduct{.m = 5, .n = 7, .k = 33, .lda = 33, .ldb = 7, .ldc = 7};

struct Matrices {
  DeviceArray<float> a, b, c, workspace;
  Matrices()
      : a(values(5 * 33), 0),
        b(values(33 * 7), 0),
        c(std::vector<float>(5 * 7), 0),
        workspace(std::vector<float>(1024), 0) {}

  static std::vector<float> values(size_t n) {
    std::vector<float> all(n);
    for (size_t i = 0; i < n; ++i) all[i] = 1.0f / static_cast<float>(3 + i % 17) - 0.1f;
    return all;
  }
  std::vector<float> run(const Products& products) const {
    REQUIRE(products.run(kProduct, a.data(), b.data(), c.data(), false, {.processors = 2}, workspace.data()) == 0);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    return c.read();
  }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("a record of algorithms gives the same bits, and without it another algorithm may run") {
  in_every_schedule([](const software::Options&) {
    const Matrices m;
    const Products large(software_cublaslt(), "one", 4096), small(software_cublaslt(), "one", 0);
    const std::vector<float> first = m.run(large), other = m.run(small);
    CHECK(!same(first, other));  // another workspace gives another algorithm, and so other bits
    REQUIRE(small.record().size() == 1);
    Products again(software_cublaslt(), "one", 4096);
    REQUIRE(again.restore(small.origin(), small.record()));
    CHECK(same(m.run(again), other));
  });
}

TEST_CASE("a record of another device or library, or one that needs more memory, is refused") {
  in_every_schedule([](const software::Options&) {
    const Matrices m;
    const Products source(software_cublaslt(), "one", 4096);
    (void)m.run(source);
    Products another(software_cublaslt(), "two", 4096), tight(software_cublaslt(), "one", 16);
    CHECK(!another.restore(source.origin(), source.record()));
    CHECK(!tight.restore(source.origin(), source.record()));
    ProductsOrigin older = source.origin();
    older.library -= 1;
    Products same_device(software_cublaslt(), "one", 4096);
    CHECK(!same_device.restore(older, source.record()));
    CHECK(same_device.record().empty());
  });
}

TEST_CASE("timing chooses the fastest algorithm, and later calls use it") {
  struct Case {
    const char* slow;
    uint64_t chosen;
  };
  for (const Case& each : {Case{"whole_sums<T>", 1}, Case{"sums_in_halves<T>", 0}}) {
    in_every_schedule([&](software::Options options) {
      INFO(each.slow);
      options.microseconds = {{each.slow, 50}};
      software::restart(options);
      const Matrices m;
      Products products(software_cublaslt(), "one", 4096);
      REQUIRE(products.tune(kProduct, m.a.data(), m.b.data(), m.c.data(), {.processors = 2}, m.workspace.data()) == 0);
      REQUIRE(products.record().size() == 1);
      CHECK(products.record()[0].algorithm.data[0] == each.chosen);
      Products again(software_cublaslt(), "one", 4096);
      REQUIRE(again.restore(products.origin(), products.record()));
      CHECK(same(m.run(again), m.run(products)));
    });
  }
}

TEST_CASE("a product that tunes chooses at its first run, and never while a graph is captured") {
  for (const software::Options& schedule : software::every_schedule()) {
    software::Options options = schedule;
    options.microseconds["sums_in_halves<T>"] = 9;
    software::restart(options);
    {
      const Matrices m;
      Products heuristic(software_cublaslt(), "one", 4096), tuned(software_cublaslt(), "one", 4096);
      tuned.set_tuning(true);
      const std::vector<float> first = m.run(heuristic), chosen = m.run(tuned);
      CHECK(!same(first, chosen));
      CHECK(same(m.run(tuned), chosen));
      REQUIRE(tuned.record().size() == 1);
      CHECK(tuned.record()[0].algorithm.data[0] == 0);
      CHECK(heuristic.record()[0].algorithm.data[0] == 1);

      Products captured(software_cublaslt(), "one", 4096);
      captured.set_tuning(true);
      cudaStream_t stream = nullptr;
      cudaGraph_t graph = nullptr;
      REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
      REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
      CHECK(captured.run(kProduct, m.a.data(), m.b.data(), m.c.data(), false, {.stream = stream, .processors = 2},
                         m.workspace.data()) == 0);
      REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
      CHECK(captured.record()[0].algorithm.data[0] == 1);
      REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
      REQUIRE(cudaStreamDestroy(stream) == cudaSuccess);
    }
    REQUIRE(software::leaks() == "");
  }
  software::restart({});
}

TEST_CASE("an op uses the algorithm that an earlier run has recorded, and its captured call keeps it") {
  register_all_cuda_kernels();
  in_every_schedule([](const software::Options&) {
    const Matrices m;
    int64_t a_shape[] = {5, 33}, b_shape[] = {33, 7}, c_shape[] = {5, 7};
    int64_t a_strides[] = {132, 4}, b_strides[] = {28, 4}, c_strides[] = {28, 4};
    const Tensor tensors[] = {{m.a.data(), a_shape, a_strides, 2, Dtype::kFloat32},
                              {m.b.data(), b_shape, b_strides, 2, Dtype::kFloat32},
                              {m.c.data(), c_shape, c_strides, 2, Dtype::kFloat32}};
    OpCall call;
    call.op = find_schema("matmul"), call.name = "matmul", call.tensors = tensors;
    std::vector<AttributeValue> attributes;
    for (const Attribute& each : call.op->attributes) attributes.push_back(each.otherwise);
    call.attributes = attributes.data();
    const auto run = [&](const Products& products, bool captured) {
      const DeviceArray<unsigned char> scratch(std::vector<unsigned char>(4096), 0);
      cudaStream_t stream = nullptr;
      REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      const CudaQueue queue{.stream = stream, .processors = 2, .scratch = scratch.data(), .products = &products};
      CHECK(cuda_scratch_bytes(call, queue) <= 4096);
      if (!captured) {
        run_cuda_call(prepare_cuda_call(call, 0), call, queue);
      } else {
        const CudaRun prepared = prepare_cuda_call(call, 0);
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t runs = nullptr;
        REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        run_cuda_call(prepared, call, queue);
        REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        REQUIRE(cudaGraphInstantiate(&runs, graph, 0) == cudaSuccess);
        REQUIRE(cudaGraphLaunch(runs, stream) == cudaSuccess);
        REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
        REQUIRE(cudaGraphExecDestroy(runs) == cudaSuccess);
        REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
      }
      REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
      REQUIRE(cudaStreamDestroy(stream) == cudaSuccess);
      return m.c.read();
    };
    const Products first(software_cublaslt(), "a card", 0), unrecorded(software_cublaslt(), "a card", 4096);
    const std::vector<float> want = run(first, false);
    ProductsOrigin origin;
    std::vector<RecordedAlgorithm> choices;
    REQUIRE(read_choices(choices_text(first.origin(), first.record()), &origin, &choices));
    for (const bool captured : {false, true}) {
      Products resumed(software_cublaslt(), "a card", 4096);
      REQUIRE(resumed.restore(origin, choices));
      CHECK(same(run(resumed, captured), want));
      CHECK(!same(run(unrecorded, captured), want));
    }
  });
}

TEST_CASE("a record goes through text and back, and gives the same bits") {
  in_every_schedule([](const software::Options&) {
    const Matrices m;
    const Products source(software_cublaslt(), "a card", 0);
    const std::vector<float> want = m.run(source);
    const std::string text = choices_text(source.origin(), source.record());
    ProductsOrigin origin;
    std::vector<RecordedAlgorithm> choices;
    REQUIRE(read_choices(text, &origin, &choices));
    CHECK(choices_text(origin, choices) == text);
    Products again(software_cublaslt(), "a card", 4096);
    REQUIRE(again.restore(origin, choices));
    CHECK(same(m.run(again), want));
  });
}

TEST_CASE("a text that was cut or changed is refused, or names algorithms that the library refuses") {
  software::restart({});
  const Matrices m;
  const Products source(software_cublaslt(), "a card", 4096);
  (void)m.run(source);
  const std::string text = choices_text(source.origin(), source.record());
  ProductsOrigin origin;
  std::vector<RecordedAlgorithm> choices;
  CHECK(!read_choices("", &origin, &choices));
  for (size_t length = 1; length < text.size(); ++length) {
    INFO(text.substr(0, length));
    if (text[length - 1] != '\n') CHECK(!read_choices(text.substr(0, length), &origin, &choices));
  }
  int taken = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    for (const char put : {'9', 'f', ' ', '-', '\0', '\n'}) {
      std::string changed = text;
      changed[at] = put;
      if (changed == text || !read_choices(changed, &origin, &choices)) continue;
      Products products(software_cublaslt(), "a card", 4096);
      if (!products.restore(origin, choices)) continue;
      ++taken;  // the change hit another product, or a byte that restore ignores
      (void)m.run(products);
    }
  }
  CHECK(taken > 0);
  std::vector<RecordedAlgorithm> wrong = source.record();
  wrong[0].algorithm.data[1] ^= 1;
  Products products(software_cublaslt(), "a card", 4096);
  CHECK(!products.restore(source.origin(), wrong));
  CHECK(products.record().empty());
}

TEST_CASE("operands that are not aligned get an algorithm that can read them, and a record knows the alignment") {
  in_every_schedule([](const software::Options&) {
    const Matrices m;
    Products products(software_cublaslt(), "one", 4096);
    const CudaQueue queue{.processors = 2};
    const std::vector<float> want = m.run(products);
    for (const size_t offset : {1, 2, 3}) {  // elements
      const DeviceArray<float> b(Matrices::values(33 * 7), offset);
      REQUIRE(products.run(kProduct, m.a.data(), b.data(), m.c.data(), false, queue, m.workspace.data()) == 0);
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      const std::vector<float> got = m.c.read();
      for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-5));
    }
    const std::vector<RecordedAlgorithm> choices = products.record();  // 12 bytes are a multiple of 4
    REQUIRE(choices.size() == 3);
    for (const RecordedAlgorithm& each : choices) {
      INFO(each.product.alignment);
      CHECK(each.algorithm.data[0] == (each.product.alignment >= 16 ? 1 : 0));
    }
    Products resumed(software_cublaslt(), "one", 4096);
    REQUIRE(resumed.restore(products.origin(), choices));
    CHECK(same(m.run(resumed), want));
    CHECK(resumed.record().size() == 3);
  });
}

TEST_CASE("a library without a symbol, and a product that does not fit, are named") {
  in_every_schedule([](const software::Options&) {
    CublasLt table;
    CHECK(std::strcmp(load_cublaslt(nullptr, &table), "cublasLtGetVersion") == 0);
    const Products products(software_cublaslt(), "one", 0);
    const Matrices m;
    CudaProduct wrong = kProduct;
    wrong.ldb = 3;
    CHECK(products.run(wrong, m.a.data(), m.b.data(), m.c.data(), false, {}, nullptr) ==
          kLibraryError + lt::kInvalidValue);
  });
}
#endif
