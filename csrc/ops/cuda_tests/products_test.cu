// Tests that algorithms of products can be recorded, restored and chosen by timing, and that other devices' records are
// refused.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <doctest/doctest.h>

#include <cstring>

#include "cuda/device.h"
#include "cuda/software/tests/device_array.h"
#include "ops/products_cuda.h"

using namespace gradring;
using namespace gradring::cuda;
using gradring::testing::DeviceArray;

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
  software::restart({});
  const Matrices m;
  const Products large(software_cublaslt(), "one", 4096), small(software_cublaslt(), "one", 0);
  const std::vector<float> first = m.run(large), other = m.run(small);
  CHECK(!same(first, other));  // another workspace gives another algorithm, and so other bits
  REQUIRE(small.record().size() == 1);
  Products again(software_cublaslt(), "one", 4096);
  REQUIRE(again.restore(small.origin(), small.record()));
  CHECK(same(m.run(again), other));
}

TEST_CASE("a record of another device or library, or one that needs more memory, is refused") {
  software::restart({});
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
}

TEST_CASE("timing chooses one of the algorithms, and later calls use it") {
  software::restart({});
  const Matrices m;
  Products products(software_cublaslt(), "one", 4096);
  REQUIRE(products.tune(kProduct, m.a.data(), m.b.data(), m.c.data(), {.processors = 2}, m.workspace.data()) == 0);
  REQUIRE(products.record().size() == 1);
  Products again(software_cublaslt(), "one", 4096);
  REQUIRE(again.restore(products.origin(), products.record()));
  CHECK(same(m.run(again), m.run(products)));
}

TEST_CASE("a record goes through text and back, and gives the same bits") {
  software::restart({});
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

TEST_CASE("a library without a symbol, and a product that does not fit, are named") {
  software::restart({});
  CublasLt table;
  CHECK(std::strcmp(load_cublaslt(nullptr, &table), "cublasLtGetVersion") == 0);
  const Products products(software_cublaslt(), "one", 0);
  const Matrices m;
  CudaProduct wrong = kProduct;
  wrong.ldb = 3;
  CHECK(products.run(wrong, m.a.data(), m.b.data(), m.c.data(), false, {}, nullptr) ==
        kLibraryError + lt::kInvalidValue);
}
#endif
