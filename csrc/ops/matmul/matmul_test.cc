#include "ops/matmul/matmul.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "ops/matmul/matmul_ref.h"
#include "ops/testing.h"
#include "runtime/cpu.h"

using namespace gradring;
using testing::for_each_isa;
using testing::normal;
using testing::uniform;

namespace {

// One random problem with its memory; odd leading dimensions, and a guard value between the rows of C.
template <class T>
struct Problem {
  MatmulArguments<T> g;
  std::vector<T> a, b, c, bias, pre, mask, sums;

  Problem(int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b) {
    g.m = m, g.n = n, g.k = k, g.trans_a = trans_a, g.trans_b = trans_b;
    g.lda = (trans_a ? m : k) + uniform(0, 3);
    g.ldb = (trans_b ? k : n) + uniform(0, 3);
    g.ldc = n + uniform(0, 3);
    a = normal<T>((trans_a ? k : m) * g.lda);
    b = normal<T>((trans_b ? n : k) * g.ldb);
    c = normal<T>(m * g.ldc);
    bias = normal<T>(n);
    pre = normal<T>(m * g.ldc);
    g.epilogue.mask_ld = n + uniform(0, 3);
    mask = normal<T>(m * g.epilogue.mask_ld);
    sums = normal<T>(n);
  }

  void use(bool with_bias, bool with_pre, bool with_mask, bool with_sums) {
    g.a = a.data(), g.b = b.data(), g.c = c.data();
    g.epilogue.bias = with_bias ? bias.data() : nullptr;
    g.epilogue.pre = with_pre ? pre.data() : nullptr;
    g.epilogue.mask_source = with_mask ? mask.data() : nullptr;
    g.epilogue.column_sums = with_sums ? sums.data() : nullptr;
  }
};

template <class T>
void run(Team& team, int lanes, const MatmulArguments<T>& g) {
  const ScratchBytes bytes = matmul_scratch(g, lanes);
  team.reserve(bytes.per_lane, bytes.shared);
  team.run(lanes, [&](const Lane& lane) { matmul(lane, g); });
}

// The largest difference, relative to the allowed rounding error.
template <class T>
double worst(const std::vector<T>& got, const std::vector<T>& expected, double scale) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (!(difference <= worst)) worst = difference;
  }
  return worst / (scale * std::numeric_limits<T>::epsilon());
}

constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kGelu,
                                       Activation::kSilu, Activation::kTanh, Activation::kSigmoid};

// A product with a random epilogue, by several numbers of lanes.
template <class T>
void check_one(Team& team, int64_t m, int64_t n, int64_t k) {
  Problem<T> problem(m, n, k, uniform(0, 1), uniform(0, 1));
  problem.g.epilogue.accumulate = uniform(0, 1);
  problem.g.cut = static_cast<Cut>(uniform(0, 2));
  problem.g.epilogue.activation = kActivations[uniform(0, 5)];
  const bool with_mask = uniform(0, 1);
  if (with_mask) problem.g.epilogue.mask = kActivations[uniform(1, 5)];
  const bool with_bias = uniform(0, 1), with_pre = uniform(0, 1), with_sums = uniform(0, 1);
  Problem<T> expected = problem;
  expected.use(with_bias, with_pre, with_mask, with_sums);
  reference::matmul(expected.g);
  Problem<T> first = problem;
  for (int lanes : {1, 2, 3, 8}) {
    Problem<T> got = problem;
    got.use(with_bias, with_pre, with_mask, with_sums);
    run(team, lanes, got.g);
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    CAPTURE(lanes);
    CAPTURE(static_cast<int>(problem.g.epilogue.activation));
    CAPTURE(static_cast<int>(problem.g.epilogue.mask));
    CAPTURE(with_mask);
    CAPTURE(std::string(isa_name(active_isa())));
    // Partial sums are up to a few sqrt(k) large, and k of them are rounded.
    const double scale = 32 * static_cast<double>(k + 4);
    REQUIRE(worst(got.c, expected.c, scale) < 1);
    REQUIRE(worst(got.pre, expected.pre, scale) < 1);
    REQUIRE(worst(got.sums, expected.sums, scale * static_cast<double>(m + 1)) < 1);
    if (lanes == 1) {
      first = got;
    } else {
      REQUIRE(got.c == first.c);
      REQUIRE(got.pre == first.pre);
      REQUIRE(got.sums == first.sums);
    }
  }
}

template <class T>
void check_random(int rounds, int64_t largest, int64_t most_columns) {
  Team team(8);
  for (int round = 0; round < rounds; ++round) {
    check_one<T>(team, uniform(0, largest), uniform(0, most_columns), uniform(0, largest));
  }
}

}  // namespace

TEST_CASE("matmul agrees with the reference, the same bits for any number of lanes") {
  for_each_isa([] {
    check_random<float>(200, 20, 20);
    check_random<double>(200, 20, 20);
    check_random<float>(60, 150, 150);
    check_random<double>(60, 150, 150);
    check_random<float>(60, 150, 12);
    check_random<double>(60, 150, 6);
    // Few rows, and more columns and steps.
    Team team(8);
    for (int round = 0; round < 60; ++round) {
      const int64_t m = uniform(1, 64);
      check_one<float>(team, m, 4 * m + uniform(-3, 40), 3 * m + uniform(-3, 60));
      check_one<double>(team, m / 2 + 1, 2 * m + uniform(1, 40), 3 * m / 2 + uniform(0, 60));
    }
    // A large C and few steps.
    for (int round = 0; round < 4; ++round) {
      check_one<float>(team, uniform(480, 560), uniform(280, 320), uniform(1, 40));
      check_one<double>(team, uniform(480, 560), uniform(140, 170), uniform(1, 40));
    }
  });
}

namespace {

// Adds every tile that it receives to its place in `to`, so that the sum is wrong if it receives a tile twice.
template <class T>
struct Collected {
  std::vector<T> to;
  int64_t ld;

  static void take(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* tile,
                   int64_t ld) noexcept {
    const auto* self = static_cast<const Collected*>(context);
    T* to = const_cast<T*>(self->to.data());
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) to[(row + i) * self->ld + column + j] += tile[i * ld + j];
  }
};

template <class T>
void check_consumer(int64_t m, int64_t n, int64_t k) {
  Team team(3);
  Problem<T> problem(m, n, k, uniform(0, 1), uniform(0, 1));
  const bool with_bias = uniform(0, 1), with_sums = uniform(0, 1), with_mask = uniform(0, 1);
  if (with_mask) problem.g.epilogue.mask = Activation::kTanh;
  Problem<T> expected = problem;
  expected.use(with_bias, false, with_mask, with_sums);
  run(team, 1, expected.g);
  for (int lanes : {1, 3}) {
    Problem<T> got = problem;
    got.use(with_bias, false, with_mask, with_sums);
    Collected<T> collected{std::vector<T>(static_cast<size_t>(m * n)), n};
    got.g.epilogue.consumer = {Collected<T>::take, &collected, {collected.to.data()}, n};
    run(team, lanes, got.g);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        REQUIRE(collected.to[static_cast<size_t>(i * n + j)] == expected.c[static_cast<size_t>(i * problem.g.ldc + j)]);
    REQUIRE(got.sums == expected.sums);
  }
}

}  // namespace

TEST_CASE("a consumer is given every tile of the product once") {
  for_each_isa([] {
    for (int round = 0; round < 60; ++round) check_consumer<float>(uniform(1, 70), uniform(1, 90), uniform(0, 40));
    for (int round = 0; round < 20; ++round) check_consumer<double>(uniform(1, 70), uniform(1, 90), uniform(0, 40));
    for (int round = 0; round < 20; ++round) check_consumer<float>(uniform(1, 90), uniform(1, 12), uniform(0, 70));
    for (int round = 0; round < 20; ++round) check_consumer<float>(uniform(14, 32), uniform(64, 160), uniform(96, 160));
    check_consumer<float>(520, 270, 21);  // a large C and few steps
    check_consumer<double>(300, 260, 40);
    check_consumer<float>(30, 50, 2500);  // more steps than one block holds
    check_consumer<double>(30, 50, 1100);
  });
}

TEST_CASE("asking for sums of columns changes no element of a product of few rows") {
  for_each_isa([] {
    Team team(2);
    for (int64_t m : {7, 14, 16, 30, 32, 64}) {
      Problem<float> with(m, 4 * m + uniform(0, 60), 3 * m + uniform(0, 40), false, true);
      with.g.epilogue.activation = Activation::kGelu;
      Problem<float> without = with;
      with.use(true, true, false, true);
      without.use(true, true, false, false);
      run(team, 2, with.g);
      run(team, 2, without.g);
      REQUIRE(with.c == without.c);
      REQUIRE(with.pre == without.pre);
    }
  });
}

TEST_CASE("matmul with k = 0 applies the epilogue to zero") {
  for_each_isa([] {
    Team team(2);
    Problem<float> problem(5, 7, 0, false, false);
    problem.g.epilogue.activation = Activation::kSigmoid;
    problem.use(false, false, false, false);
    run(team, 2, problem.g);
    for (int64_t i = 0; i < 5; ++i)
      for (int64_t j = 0; j < 7; ++j) CHECK(problem.c[static_cast<size_t>(i * problem.g.ldc + j)] == 0.5f);
  });
}

TEST_CASE("NaN and infinity go through as IEEE says") {
  for_each_isa([] {
    Team team(2);
    const float inf = std::numeric_limits<float>::infinity();
    for (bool trans_a : {false, true}) {
      for (bool trans_b : {false, true}) {
        for (int64_t size : {3, 16, 40}) {
          Problem<float> problem(size, size, size, trans_a, trans_b);
          const int64_t row = 1, inner = 2;
          float& poisoned =
              problem.a[static_cast<size_t>(trans_a ? inner * problem.g.lda + row : row * problem.g.lda + inner)];
          for (float value : {std::nanf(""), inf}) {
            poisoned = value;
            for (Activation activation : {Activation::kNone, Activation::kRelu}) {
              problem.g.epilogue.activation = activation;
              problem.use(false, false, false, false);
              run(team, 2, problem.g);
              for (int64_t i = 0; i < size; ++i) {
                for (int64_t j = 0; j < size; ++j) {
                  const float got = problem.c[static_cast<size_t>(i * problem.g.ldc + j)];
                  const float b =
                      problem.b[static_cast<size_t>(trans_b ? j * problem.g.ldb + inner : inner * problem.g.ldb + j)];
                  if (i != row) {
                    CHECK(std::isfinite(got));
                  } else if (std::isnan(value)) {
                    CHECK(std::isnan(got));
                  } else if (activation == Activation::kRelu && b < 0) {
                    CHECK(got == 0);
                  } else {
                    CHECK(got == (b > 0 ? inf : -inf));
                  }
                }
              }
            }
          }
        }
      }
    }
  });
}
