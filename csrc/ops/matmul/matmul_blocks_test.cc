// Tests sizes a little below and above the blocks into which products are cut, against the bound on rounding errors;
// and products on a team that gets fewer threads than it asks for.
#include <doctest/doctest.h>
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/product_ref.h"
#include "ops/testing.h"
#include "runtime/cpu.h"
#include "runtime/default_team.h"
#include "runtime/second_cache.h"
#include "runtime/testing.h"

using namespace gradring;
using testing::for_each_isa;
using testing::normal;
using testing::random_bits;

namespace {

template <class T>
MatmulBlocks blocks() {
  if constexpr (std::is_same_v<T, float>) {
    return GRADRING_KERNELS(matmul_kernels_f32).blocks();
  } else {
    return GRADRING_KERNELS(matmul_kernels_f64).blocks();
  }
}

// A product whose arrays begin at any address and end with their last element. Between the rows of C lie `gap` numbers that the
// product must not change.
template <class T>
struct Product {
  static constexpr int64_t gap = 3;
  MatmulArguments<T> g;
  size_t shift = random_bits()() % 16;  // where b begins in its memory
  std::vector<T> a, b, c;

  Product(int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b, bool accumulate)
      : a(normal<T>(m * k)), b(normal<T>(static_cast<int64_t>(shift) + k * n)), c(normal<T>(m * (n + gap))) {
    g.m = m, g.n = n, g.k = k, g.trans_a = trans_a, g.trans_b = trans_b;
    g.a = a.data(), g.lda = trans_a ? m : k;
    g.b = b.data() + shift, g.ldb = trans_b ? k : n;
    g.ldc = n + gap;
    g.epilogue.accumulate = accumulate;
  }

  std::vector<T> run(Team& team, int lanes) const {
    std::vector<T> result = c;
    MatmulArguments<T> arguments = g;
    arguments.c = result.data();
    const ScratchBytes bytes = matmul_scratch(arguments, lanes);
    team.reserve(bytes.per_lane, bytes.shared);
    team.run(lanes, [&](const Lane& lane) { matmul(lane, arguments); });
    return result;
  }

  // The worst |got - truth|, as a multiple of its bound: the error of a sum of k products, rounded at each of at most k
  // + 2 steps, is at most (k + 2) u / (1 - (k + 2) u) times the sum of |a| |b| (Higham, Accuracy and Stability of
  // Numerical Algorithms, 2002, section 3.1). Truth and bound are summed in double, and the bound includes the error of
  // that.
  double worst(const std::vector<T>& got) const {
    const double u = std::numeric_limits<T>::epsilon() / 2, v = std::numeric_limits<double>::epsilon() / 2;
    const double steps = static_cast<double>(g.k) + 2, allowed = steps * u / (1 - steps * u) + steps * v;
    const auto factors = reference::matrix(g.a, g.m, g.k, g.lda, g.trans_a);
    const auto rows = reference::matrix(g.b, g.k, g.n, g.ldb, g.trans_b);
    auto sizes = rows;
    for (double& size : sizes) size = std::abs(size);
    std::vector<double> sum(static_cast<size_t>(g.n)), size(sum.size());
    double worst = 0;
    for (int64_t i = 0; i < g.m; ++i) {
      const T* const before = &c[static_cast<size_t>(i * g.ldc)];
      for (size_t j = 0; j < sum.size(); ++j) {
        sum[j] = g.epilogue.accumulate ? before[j] : 0;
        size[j] = std::abs(sum[j]);
      }
      for (int64_t p = 0; p < g.k; ++p) {
        const double factor = factors[static_cast<size_t>(i * g.k + p)];
        reference::add_scaled(sum.data(), factor, rows.data() + p * g.n, g.n);
        reference::add_scaled(size.data(), std::abs(factor), sizes.data() + p * g.n, g.n);
      }
      for (size_t j = 0; j < sum.size(); ++j) {
        const double error = std::abs(got[static_cast<size_t>(i * g.ldc) + j] - sum[j]) / (allowed * size[j]);
        if (!(error <= worst)) worst = error;
      }
    }
    return worst;
  }

  bool gaps_untouched(const std::vector<T>& got) const {
    for (size_t i = 0; i < static_cast<size_t>(g.m); ++i)
      for (size_t j = static_cast<size_t>(g.n); j < static_cast<size_t>(g.ldc); ++j)
        if (got[i * static_cast<size_t>(g.ldc) + j] != c[i * static_cast<size_t>(g.ldc) + j]) return false;
    return true;
  }
};

template <class T>
void check(int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(trans_a);
  CAPTURE(trans_b);
  CAPTURE(sizeof(T));
  CAPTURE(std::string(isa_name(active_isa())));
  static Team team(3);
  const Product<T> product(m, n, k, trans_a, trans_b, random_bits()() % 2);
  const std::vector<T> alone = product.run(team, 1);
  REQUIRE(product.worst(alone) <= 1);
  REQUIRE(product.gaps_untouched(alone));
  REQUIRE(product.run(team, 2) == alone);
  REQUIRE(product.run(team, 3) == alone);
}

// Moves one side at a time across its blocks' edges, while the others are small and no whole tiles; then all together.
template <class T>
void check_edges() {
  const MatmulBlocks cut = blocks<T>();
  const int64_t rows = 2 * cut.tile_rows + 1, columns = 3 * cut.tile_columns + 5;
  for (int flags = 0; flags < 4; ++flags) {
    const bool trans_a = flags & 1, trans_b = flags & 2;
    for (int64_t d = -1; d <= 1; ++d) {
      check<T>(cut.rows + d, columns, cut.steps + d, trans_a, trans_b);
      check<T>(2 * cut.rows + d, columns, cut.steps, trans_a, trans_b);
      check<T>(rows, cut.columns + d, 33, trans_a, trans_b);
      check<T>(rows, 2 * cut.columns + d, 9, trans_a, trans_b);
      check<T>(rows, columns, 2 * cut.steps + d, trans_a, trans_b);
      for (int64_t tiles : {1, 2, 3, 15, 16}) check<T>(tiles * cut.tile_rows + d, columns, 40, trans_a, trans_b);
      // Tiles of few rows lie close together when they are packed.
      for (int64_t m : {2, 3, 5}) check<T>(m * cut.tile_rows / 4 + d, columns, cut.steps / 4 + d, trans_a, trans_b);
    }
  }
  const uint64_t flags = random_bits()();
  check<T>(cut.rows + 1, cut.columns + 1, cut.steps + 1, flags & 1, flags & 2);
  // A large C and few steps: the kernel computes one tile of rows after another.
  const int64_t more = random_bits()() % 40 + 600;
  for (int64_t k : {1, 2, 10, 47}) {
    check<T>(more, 263, k, k & 1, flags & 2);
    check<T>(more, 258, k, !(k & 1), !(flags & 2));
  }
  check<T>(77, cut.columns + 1, 11, flags & 1, flags & 2);
  check<T>(2 * cut.tile_rows + 1, 3 * cut.columns, 3, flags & 2, flags & 1);
}

// Moves the columns across the ends of panels, of which each copies the next, with so few steps that some tiles copy none.
template <class T>
void check_copying() {
  const MatmulBlocks cut = blocks<T>();
  for (int flags = 0; flags < 4; ++flags) {
    for (int64_t k : {1, 2, 3, 25, 41}) {
      for (int64_t tiles : {1, 2, 3, 5}) {
        for (int64_t panels : {1, 2, 3}) {
          const int64_t shift = static_cast<int64_t>(random_bits()() % 3) - 1;
          check<T>(tiles * cut.tile_rows - shift, panels * cut.tile_columns + shift, k, flags & 1, flags & 2);
        }
      }
    }
  }
}

// A packed A, whose rows are half a page apart, that one to three panels of columns use: the tiles of one panel share a place, and
// those of more lie in short blocks.
template <class T>
void check_few_panels() {
  const MatmulBlocks cut = blocks<T>();
  const int64_t steps = 4096 / static_cast<int64_t>(sizeof(T));
  for (int64_t columns : {cut.tile_columns / 2 + 1, cut.tile_columns, cut.tile_columns + 1, 3 * cut.tile_columns}) {
    for (int64_t k : {steps / 2, steps}) {
      for (int64_t tiles : {1, 2, 5, 23}) {
        const int64_t shift = static_cast<int64_t>(random_bits()() % 3) - 1;
        check<T>(tiles * cut.tile_rows - shift, columns, k, random_bits()() % 2, random_bits()() % 2);
        check<T>(tiles * cut.tile_rows - shift, columns, k, false, random_bits()() % 2);
      }
    }
  }
}

// The blocks follow the second cache. Their edges move with it, and no bit does.
template <class T>
void check_caches() {
  set_second_cache_bytes(0);
  const MatmulBlocks here = blocks<T>();
  for (int flags = 0; flags < 4; ++flags) {
    const Product<T> product(5 * here.tile_rows + 1, 2 * here.tile_columns + 3, here.steps + 1, flags & 1, flags & 2,
                             flags & 1);
    Team team(1);
    const std::vector<T> expected = product.run(team, 1);
    CHECK(product.worst(expected) <= 1);
    for (long bytes : {1L << 12, 1L << 20, 3L << 19, 2L << 20, 64L << 20}) {
      set_second_cache_bytes(bytes);
      const MatmulBlocks cut = blocks<T>();
      CHECK(cut.rows >= 2 * cut.tile_rows);
      if (bytes <= 1 << 20) CHECK(cut.rows <= here.rows);
      CHECK(product.run(team, 1) == expected);
      // More tiles than one block has, so that blocks after the first read packed panels.
      const Product<T> tall(cut.rows + cut.tile_rows + 1, 3 * cut.tile_columns + 1, here.steps, flags & 1, flags & 2,
                            false);
      const std::vector<T> got = tall.run(team, 1);
      CHECK(tall.worst(got) <= 1);
      set_second_cache_bytes(1 << 20);
      CHECK(tall.run(team, 1) == got);
    }
    set_second_cache_bytes(0);
  }
}

// Checks the methods for few rows and few columns, at lengths around the ends of chunks and at multiples of half a
// page.
template <class T>
void check_narrow() {
  for (int flags = 0; flags < 4; ++flags) {
    const bool trans_a = flags & 1, trans_b = flags & 2;
    for (int64_t k : {511, 512, 513, 2048}) {
      check<T>(16, 37, k, trans_a, trans_b);
      check<T>(7, 10, k, trans_a, trans_b);
      check<T>(65, 3, k, trans_a, trans_b);
      check<T>(197, 10, k, trans_a, trans_b);
    }
    for (int64_t n : {127, 129, 144, 1040, 2047, 2048, 2049, 4097}) check<T>(1, n, 35, trans_a, trans_b);
  }
}

}  // namespace

TEST_CASE("products that end a little before or beyond a block are right to the last rounding") {
  for_each_isa([] {
    check_edges<float>();
    check_edges<double>();
  });
}

TEST_CASE("panels that copy the next one copy all of it") {
  for_each_isa([] {
    check_copying<float>();
    check_copying<double>();
  });
}

TEST_CASE("a packed A that few panels use is right to the last rounding") {
  for_each_isa([] {
    check_few_panels<float>();
    check_few_panels<double>();
  });
}

TEST_CASE("the bits of a product do not depend on the size of the second cache") {
  for_each_isa([] {
    check_caches<float>();
    check_caches<double>();
  });
}

namespace {

// A product with few steps and an epilogue, whose C begins `beyond` elements after a cache line. All rows of C begin alike.
template <class T>
void check_beyond_lines(int64_t m, int64_t n, int64_t k, bool trans_b) {
  const int64_t line = 64 / static_cast<int64_t>(sizeof(T)), ldc = (n + 2 * line) / line * line;
  Product<T> product(m, n, k, random_bits()() % 2, trans_b, random_bits()() % 2);
  const std::vector<T> bias = normal<T>(n), before = normal<T>(m * ldc), source = normal<T>(m * (n + 1));
  MatmulArguments<T> g = product.g;
  g.lda = g.trans_a ? m : k, g.ldc = ldc;
  const int which = static_cast<int>(random_bits()() % 4);
  if (which > 0) g.epilogue.bias = bias.data();
  if (which == 1) g.epilogue.activation = Activation::kRelu;
  if (which == 2) g.epilogue.activation = Activation::kGelu;
  if (which == 3)
    g.epilogue.mask = Activation::kTanh, g.epilogue.mask_source = source.data(), g.epilogue.mask_ld = n + 1;
  static Team team(3);
  std::vector<T> expected, expected_pre;
  for (const int64_t beyond : {int64_t{0}, int64_t{1}, line / 4, line - 1}) {
    for (int lanes = 1; lanes <= 3; ++lanes) {
      CAPTURE(m);
      CAPTURE(n);
      CAPTURE(k);
      CAPTURE(trans_b);
      CAPTURE(which);
      CAPTURE(beyond);
      CAPTURE(lanes);
      alignas(64) static T c[96 * 512], pre[96 * 512];
      REQUIRE(static_cast<size_t>(m * ldc + line) <= std::size(c));
      for (size_t i = 0; i < std::size(c); ++i) c[i] = pre[i] = T(7);
      std::copy(before.begin(), before.end(), c + beyond);
      g.c = c + beyond;
      if (which == 2) g.epilogue.pre = pre + beyond;
      const ScratchBytes bytes = matmul_scratch(g, lanes);
      team.reserve(bytes.per_lane, bytes.shared);
      team.run(lanes, [&](const Lane& lane) { matmul(lane, g); });
      const std::vector<T> got(g.c, g.c + m * ldc), got_pre(pre + beyond, pre + beyond + m * ldc);
      if (expected.empty()) expected = got, expected_pre = got_pre;
      REQUIRE(got == expected);
      REQUIRE(got_pre == expected_pre);
      for (int64_t i = 0; i < m * ldc; ++i)
        if (i % ldc >= n) REQUIRE(got[static_cast<size_t>(i)] == before[static_cast<size_t>(i)]);
      for (int64_t i = 0; i < beyond; ++i) REQUIRE(c[i] == T(7));
      REQUIRE(c[beyond + m * ldc] == T(7));
    }
  }
}

}  // namespace

TEST_CASE("where C begins within a cache line, products with few steps have the same bits and write nothing else") {
  for_each_isa([] {
    for (const int64_t m : {1, 2, 15, 90})
      for (const int64_t n : {64, 127, 128, 129, 300, 440})
        for (const int64_t k : {1, 10, 20, 21}) {
          check_beyond_lines<float>(m, n, k, (m + n + k) % 2 == 0);
          check_beyond_lines<double>(m, n, k, (m + n + k) % 3 == 0);
        }
  });
}

TEST_CASE("narrow products are right to the last rounding at every edge") {
  for_each_isa([] {
    check_narrow<float>();
    check_narrow<double>();
  });
}

namespace {

// In a child process that may start a few threads or none, runs a product planned for many lanes. Returns 0 if it is
// right.
int product_by_few(bool no_threads) {
  const Product<float> product(150, 200, 90, false, true, false);
  return testing::exit_of_child([&] {
    Team one(1);
    const std::vector<float> alone = product.run(one, 1);
    std::vector<float> got = product.c;
    MatmulArguments<float> g = product.g;
    g.c = got.data();
    set_default_lanes(32);
    const ScratchBytes bytes = matmul_scratch(g, 32);
    testing::limit_address_space(size_t{44} << 20);
    pthread_attr_t stack;
    pthread_attr_init(&stack);
    pthread_attr_setstacksize(&stack, size_t{no_threads ? 512u : 8u} << 20);
    pthread_setattr_default_np(&stack);
    int lanes = 0;
    {
      TeamLease lease(32, bytes.per_lane, bytes.shared);
      lease.run([&](const Lane& lane) {
        matmul(lane, g);
        if (lane.index == 0) lanes = lane.count;
      });
    }
    if (lanes < 1 || lanes == 32 || (lanes == 1) != no_threads) return 2;
    if (got != alone) return 3;
    for (float& value : got) value = 0;
    {
      TeamLease again(32, bytes.per_lane, bytes.shared);
      again.run_each(1e9, [&](const Lane& lane) { matmul(lane, g); });
    }
    for (size_t i = 0; i < got.size(); ++i) {
      const bool gap = static_cast<int64_t>(i) % g.ldc >= g.n;
      if (got[i] != (gap ? 0 : alone[i])) return 4;
    }
    return 0;
  });
}

}  // namespace

TEST_CASE("where the system refuses some threads or all, products are right with the lanes that are left" *
          doctest::skip(testing::kSanitized)) {
  CHECK(product_by_few(false) == 0);
  CHECK(product_by_few(true) == 0);
}
