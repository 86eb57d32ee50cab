#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_ref.h"
#include "ops/testing.h"
#include "ops/tiles/tiles.h"

using namespace gradring;
using testing::for_each_isa;
using testing::normal;
using testing::uniform;

namespace {

constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kGelu,
                                       Activation::kSilu, Activation::kTanh, Activation::kSigmoid};

// One problem with its memory; odd leading dimensions, and values between the rows of C that must stay.
struct Problem {
  MatmulArguments<float> g;
  std::vector<float> a, b, c, bias, pre, mask, sums;
  bool with_bias = false, with_pre = false, with_mask = false, with_sums = false;

  Problem(int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b, Products products) {
    g.m = m, g.n = n, g.k = k, g.trans_a = trans_a, g.trans_b = trans_b, g.products = products;
    g.lda = (trans_a ? m : k) + uniform(0, 3);
    g.ldb = (trans_b ? k : n) + uniform(0, 3);
    g.ldc = n + uniform(0, 3);
    a = normal<float>((trans_a ? k : m) * g.lda);
    b = normal<float>((trans_b ? n : k) * g.ldb);
    c = normal<float>(m * g.ldc);
    bias = normal<float>(n);
    pre = normal<float>(m * g.ldc);
    g.epilogue.mask_ld = n + uniform(0, 3);
    mask = normal<float>(m * g.epilogue.mask_ld);
    sums = normal<float>(n);
  }

  float& a_at(int64_t i, int64_t p) { return a[static_cast<size_t>(g.trans_a ? p * g.lda + i : i * g.lda + p)]; }
  float& b_at(int64_t p, int64_t j) { return b[static_cast<size_t>(g.trans_b ? j * g.ldb + p : p * g.ldb + j)]; }
  float& c_at(int64_t i, int64_t j) { return c[static_cast<size_t>(i * g.ldc + j)]; }

  void use() {
    g.a = a.data(), g.b = b.data(), g.c = c.data();
    g.epilogue.bias = with_bias ? bias.data() : nullptr;
    g.epilogue.pre = with_pre ? pre.data() : nullptr;
    g.epilogue.mask_source = with_mask ? mask.data() : nullptr;
    g.epilogue.column_sums = with_sums ? sums.data() : nullptr;
  }
};

void run(Team& team, int lanes, Problem& problem) {
  problem.use();
  const ScratchBytes bytes = matmul_scratch(problem.g, lanes);
  team.reserve(bytes.per_lane, bytes.shared);
  team.run(lanes, [&](const Lane& lane) { matmul(lane, problem.g); });
}

bool same(const std::vector<float>& x, const std::vector<float>& y) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::bit_cast<uint32_t>(x[i]) != std::bit_cast<uint32_t>(y[i]) && !(std::isnan(x[i]) && std::isnan(y[i])))
      return false;
  }
  return true;
}

double worst(const std::vector<float>& got, const std::vector<float>& expected) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}

// Errors of the elements of C, each relative to its element of |A||B|.
struct Error {
  double largest = 0, mean_square = 0;
};
Error error_of(Problem& problem) {
  const auto& g = problem.g;
  Error error;
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      double sum = 0, size = 0;
      for (int64_t p = 0; p < g.k; ++p) {
        const double product = double{problem.a_at(i, p)} * double{problem.b_at(p, j)};
        sum += product;
        size += std::abs(product);
      }
      const double relative = std::abs(double{problem.c_at(i, j)} - sum) / (size > 0 ? size : 1);
      if (!(relative <= error.largest)) error.largest = relative;
      error.mean_square += relative * relative / static_cast<double>(g.m * g.n);
    }
  }
  return error;
}

struct Errors {
  Error fma, pieces3, pieces2;
};
Errors errors_of(Team& team, Problem problem) {
  Error errors[3];
  for (int products = 0; products < 3; ++products) {
    problem.g.products = static_cast<Products>(products);
    run(team, 1, problem);
    errors[products] = error_of(problem);
  }
  return {errors[0], errors[1], errors[2]};
}

}  // namespace

TEST_CASE(
    "products by pieces agree with the reference; the same bits for lanes and the emulation, and of ordinary numbers "
    "for levels") {
  Team team(8);
  const int rounds = unit_tiles() ? 40 : 8;  // the emulation is slow
  for (int round = 0; round < rounds; ++round) {
    const int64_t m = uniform(48, 150), n = uniform(48, 150), k = uniform(0, 3) ? uniform(64, 200) : uniform(500, 1100);
    Problem problem(m, n, k, uniform(0, 1), uniform(0, 1), uniform(0, 3) ? Products::kPieces3 : Products::kPieces2);
    problem.g.epilogue.accumulate = uniform(0, 1);
    problem.g.cut = static_cast<Cut>(uniform(0, 2));
    problem.g.epilogue.activation = kActivations[uniform(0, 5)];
    problem.with_mask = uniform(0, 1);
    if (problem.with_mask) problem.g.epilogue.mask = kActivations[uniform(1, 5)];
    problem.with_bias = uniform(0, 1), problem.with_pre = uniform(0, 1), problem.with_sums = uniform(0, 1);
    REQUIRE(by_pieces(problem.g));
    Problem expected = problem;
    expected.use();
    reference::matmul(expected.g);
    // Two pieces leave 2^-15 of each product out at most.
    const double scale = static_cast<double>(k + 4) * (problem.g.products == Products::kPieces2 ? 0x1p-13 : 0x1p-18);
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    for_each_isa([&] {
      CAPTURE(std::string(isa_name(active_isa())));
      Problem first = problem;
      run(team, 1, first);
      REQUIRE(worst(first.c, expected.c) < scale);
      REQUIRE(worst(first.pre, expected.pre) < scale);
      REQUIRE(worst(first.sums, expected.sums) < scale * static_cast<double>(m + 1));
      const auto require_same = [&](int lanes) {
        Problem got = problem;
        run(team, lanes, got);
        REQUIRE(same(got.c, first.c));
        REQUIRE(same(got.pre, first.pre));
        REQUIRE(same(got.sums, first.sums));
      };
      for (int lanes : {2, 3, 8}) require_same(lanes);
      if (round % 8 == 0 && unit_tiles()) {
        emulate_tiles(true);
        require_same(2);
        emulate_tiles(false);
      }
    });
  }
}

TEST_CASE("large products go through all blocks of rows, columns and steps") {
  Team team(3);
  for (const auto& [m, n, k] : {std::tuple{700, 90, 600}, std::tuple{90, 2300, 520}, std::tuple{300, 2100, 70}}) {
    Problem problem(m, n, k, uniform(0, 1), uniform(0, 1), Products::kPieces3);
    Problem first = problem;
    run(team, 1, first);
    CHECK(error_of(first).largest < 0x1p-21);
    Problem other = problem;
    run(team, 3, other);
    CHECK(same(first.c, other.c));
  }
}

TEST_CASE("pieces3 is more exact than multiply-adds for dense operands, and pieces2 within its bound") {
  Team team(1);
  using Fill = std::function<void(Problem&)>;
  const auto random = [](Problem&) {};
  const auto positive = [](Problem& p) {
    for (float& x : p.a) x = std::abs(x);
    for (float& x : p.b) x = std::abs(x);
  };
  // The columns of A grow by powers, the rows of B shrink.
  const auto graded = [](Problem& p) {
    for (int64_t q = 0; q < p.g.k; ++q) {
      const float scale = std::ldexp(1.0f, static_cast<int>(q % 40) - 20);
      for (int64_t i = 0; i < p.g.m; ++i) p.a_at(i, q) *= scale;
      for (int64_t j = 0; j < p.g.n; ++j) p.b_at(q, j) /= scale;
    }
  };
  const auto cancelling = [](Problem& p) {
    for (int64_t q = 0; q + 1 < p.g.k; q += 2) {
      for (int64_t i = 0; i < p.g.m; ++i) p.a_at(i, q + 1) = p.a_at(i, q);
      for (int64_t j = 0; j < p.g.n; ++j) p.b_at(q + 1, j) = -p.b_at(q, j) * (1 + 1e-6f * static_cast<float>(q % 7));
    }
  };
  const auto scaled_by = [](Problem& p, int a_exponents, int b_exponents) {
    for (int64_t i = 0; i < p.g.m; ++i) {
      const float scale = std::ldexp(1.0f, static_cast<int>(i * 37 % a_exponents) - a_exponents / 2);
      for (int64_t q = 0; q < p.g.k; ++q) p.a_at(i, q) *= scale;
    }
    for (int64_t j = 0; j < p.g.n; ++j) {
      const float scale = std::ldexp(1.0f, static_cast<int>(j * 53 % b_exponents) - b_exponents / 2);
      for (int64_t q = 0; q < p.g.k; ++q) p.b_at(q, j) *= scale;
    }
  };
  const auto scaled = [&](Problem& p) { scaled_by(p, 50, 30); };
  // Up to what nearly overflows, and below what the unit does not flush.
  const auto badly_scaled = [&](Problem& p) { scaled_by(p, 120, 80); };
  const auto any_size = [](Problem& p) {
    for (float& x : p.a) x = std::ldexp(x, static_cast<int>(uniform(-60, 40)));
    for (float& x : p.b) x = std::ldexp(x, static_cast<int>(uniform(-60, 40)));
  };
  // A few terms make up a sum, so there is little to gain from short chains.
  const auto growing = [](Problem& p) {
    for (int64_t q = 0; q < p.g.k; ++q)
      for (int64_t i = 0; i < p.g.m; ++i)
        p.a_at(i, q) *= std::exp2(40.0f * static_cast<float>(q) / static_cast<float>(p.g.k));
  };
  const auto shrinking = [](Problem& p) {
    for (int64_t q = 0; q < p.g.k; ++q)
      for (int64_t i = 0; i < p.g.m; ++i)
        p.a_at(i, q) *= std::exp2(-40.0f * static_cast<float>(q) / static_cast<float>(p.g.k));
  };
  const auto sparse = [](Problem& p) {
    for (int64_t i = 0; i < p.g.m; ++i) {
      const int64_t first = uniform(0, p.g.k - 1), second = uniform(0, p.g.k - 1);
      for (int64_t q = 0; q < p.g.k; ++q)
        if (q != first && q != second) p.a_at(i, q) = 0;
    }
  };
  const auto one_large = [](Problem& p) {
    const int64_t large = uniform(0, 1) ? p.g.k - 1 : 0;
    for (int64_t i = 0; i < p.g.m; ++i) p.a_at(i, large) *= 1e4f;
  };
  // What the products left out, at its largest and all of one sign: 0.99 of 2^-24 of each product.
  const auto most_left_out = [](Problem& p) {
    for (float& x : p.a) x = std::bit_cast<float>((std::bit_cast<uint32_t>(x) & 0x7f800000) | 0x00007fc0);
    for (float& x : p.b) x = std::bit_cast<float>((std::bit_cast<uint32_t>(x) & 0x7f800000) | 0x00007fc0);
  };
  // The most that the root of the mean square of the errors of pieces3 may be, relative to that of the chain of multiply-adds. Over
  // 4480 sums it hardly varies: each bound but 1 is eight to twenty standard deviations above the mean of 104 draws. Blocks of
  // badly_scaled and any_size are computed by multiply-adds, where pieces cannot hold them. What is above 1 are sums of few terms,
  // where a chain rounds once or twice, and most_left_out.
  struct Kind {
    Fill fill;
    double times;
  };
  int kind = 0;
  for (const auto& [fill, times] :
       {Kind{random, 0.5}, Kind{positive, 0.5}, Kind{graded, 0.5}, Kind{cancelling, 0.5}, Kind{scaled, 0.5},
        Kind{badly_scaled, 1}, Kind{any_size, 1}, Kind{shrinking, 0.6}, Kind{growing, 1.7}, Kind{sparse, 1.4},
        Kind{one_large, 2.4}, Kind{most_left_out, 1.3}}) {
    ++kind;
    CAPTURE(kind);
    for (const int64_t k : {64, 130, 600, 2000}) {
      CAPTURE(k);
      Problem problem(64, 70, k, uniform(0, 1), uniform(0, 1), Products::kFma);
      fill(problem);
      const Errors errors = errors_of(team, problem);
      CHECK(errors.pieces3.mean_square <= times * times * errors.fma.mean_square);
      // The largest error varies much more, so its bound is the one that follows from the number of roundings. For each block of 32
      // steps, the unit rounds a sum of 16 products, adds two of those sums, and adds to C: for pieces3 once at C's full size, and
      // five times below 2^-6 of it; for pieces2 three times. What pieces3 leaves out is less than 2^-24 of each product.
      const double blocks = std::ceil(static_cast<double>(k) / 32) + std::ceil(static_cast<double>(k) / 512);
      CHECK(errors.pieces3.largest <= (20 + 1.2 * blocks) * 0x1p-24 + 0x1p-24);
      CHECK(errors.pieces2.largest <= (18 + 3 * blocks) * 0x1p-24 + 0x1p-15);
      // Measured: 7e-6 / sqrt(k), with a deviation of 1.2e-7 / sqrt(k).
      if (kind == 1) CHECK(errors.pieces2.mean_square <= 8e-6 * 8e-6 / static_cast<double>(k));
    }
  }
}

TEST_CASE("NaN, infinity, subnormals and what pieces cannot hold give what fp32 products give") {
  Team team(2);
  const float inf = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
  const float specials[] = {inf,       -inf,   std::nanf(""),    most,    -most, 1e-40f,
                            -1.4e-45f, 2e-38f, 0x1.fffffep-102f, 3.39e38f};
  for (int round = 0; round < 60; ++round) {
    const int64_t k = uniform(64, 130);
    Problem problem(70, 75, k, uniform(0, 1), uniform(0, 1), Products::kPieces3);
    problem.g.epilogue.accumulate = round % 3 == 0;
    // A few special values in both operands, or an operand that is small throughout.
    if (round % 4 == 3) {
      for (float& x : problem.a) x *= 1e-37f;
      for (float& x : problem.b) x *= uniform(0, 1) ? 1e-3f : 1e30f;
    } else {
      for (int count = 0; count < 3; ++count) {
        const float value = specials[uniform(0, 9)];
        if (uniform(0, 1)) {
          problem.a_at(uniform(0, 69), uniform(0, k - 1)) = value;
        } else {
          problem.b_at(uniform(0, k - 1), uniform(0, 74)) = value;
        }
      }
    }
    Problem plain = problem, pieces = problem;
    plain.g.products = Products::kFma;
    run(team, 1, plain);
    run(team, 2, pieces);
    for (int64_t i = 0; i < 70; ++i) {
      for (int64_t j = 0; j < 75; ++j) {
        double size = problem.g.epilogue.accumulate ? std::abs(double{problem.c_at(i, j)}) : 0;
        for (int64_t p = 0; p < k; ++p) size += std::abs(double{problem.a_at(i, p)} * double{problem.b_at(p, j)});
        const float expected = plain.c_at(i, j), got = pieces.c_at(i, j);
        CAPTURE(round);
        CAPTURE(expected);
        CAPTURE(got);
        if (std::isfinite(expected)) {
          // An error of one unit of a subnormal number is as good as it gets.
          REQUIRE(std::abs(double{got} - double{expected}) <= 1e-6 * size + 0x1p-148);
        } else {
          REQUIRE((std::isnan(expected) ? std::isnan(got) : got == expected));
        }
      }
    }
  }
}

TEST_CASE("NaN and infinity in a bias, a mask and an old C come out as from fp32 products") {
  Team team(2);
  const float inf = std::numeric_limits<float>::infinity();
  const float specials[] = {inf, -inf, std::nanf("")};
  for (int round = 0; round < 48; ++round) {
    const int64_t m = uniform(48, 80), n = uniform(48, 80), k = round % 6 ? uniform(64, 130) : uniform(520, 700);
    CAPTURE(round);
    Problem problem(m, n, k, uniform(0, 1), uniform(0, 1), Products::kPieces3);
    problem.g.epilogue.accumulate = round % 3 == 0;
    problem.with_bias = round % 3 == 1 || uniform(0, 1);
    problem.with_mask = round % 3 == 2 || uniform(0, 1);
    problem.with_sums = true;
    if (problem.with_mask) problem.g.epilogue.mask = kActivations[uniform(1, 5)];
    if (uniform(0, 1)) problem.g.epilogue.activation = Activation::kRelu;
    const auto put = [&](std::vector<float>& into, int64_t row, int64_t ld) {
      into[static_cast<size_t>(row * ld + uniform(0, n - 1))] = specials[uniform(0, 2)];
    };
    for (int count = 0; count < 3; ++count) {
      put(problem.c, uniform(0, m - 1), problem.g.ldc);
      if (count == 0) put(problem.bias, 0, 0);
      put(problem.mask, uniform(0, m - 1), problem.g.epilogue.mask_ld);
    }
    Problem plain = problem, pieces = problem;
    plain.g.products = Products::kFma;
    run(team, 1, plain);
    run(team, 2, pieces);
    const auto require_agrees = [](float expected, float got, double allowed) {
      CAPTURE(expected);
      CAPTURE(got);
      if (std::isfinite(expected)) {
        REQUIRE(std::abs(double{got} - double{expected}) <= allowed);
      } else {
        REQUIRE((std::isnan(expected) ? std::isnan(got) : got == expected));
      }
    };
    int64_t special = 0;
    for (int64_t j = 0; j < n; ++j) {
      double allowed_sum = 0;
      for (int64_t i = 0; i < m; ++i) {
        const auto column = static_cast<size_t>(j);
        double size = problem.g.epilogue.accumulate ? std::abs(double{problem.c_at(i, j)}) : 0;
        if (problem.with_bias) size += std::abs(double{problem.bias[column]});
        for (int64_t p = 0; p < k; ++p) size += std::abs(double{problem.a_at(i, p)} * double{problem.b_at(p, j)});
        // A derivative is at most 1.2 + source^2 in magnitude, and at most 1 where the source is infinite and the derivative finite.
        double source = 0;
        if (problem.with_mask) source = problem.mask[static_cast<size_t>(i * problem.g.epilogue.mask_ld) + column];
        if (!std::isfinite(source)) source = 0;
        const double bound = 2e-6 * size * (1.2 + source * source);
        // A result that an activation or a mask makes finite again is the same number.
        const double allowed = std::isfinite(bound) ? bound : 0;
        allowed_sum += allowed;
        require_agrees(plain.c_at(i, j), pieces.c_at(i, j), allowed);
        special += !std::isfinite(plain.c_at(i, j));
      }
      // Sums are in blocks of other rows.
      require_agrees(plain.sums[static_cast<size_t>(j)], pieces.sums[static_cast<size_t>(j)], 100 * allowed_sum);
    }
    // A mask or an activation may take them all away.
    const bool kept = problem.g.epilogue.activation == Activation::kNone && !problem.with_mask;
    if (problem.g.epilogue.accumulate && kept) REQUIRE(special > 0);
  }
}

TEST_CASE("one special value changes only the results of its panel, and only its block of steps") {
  Team team(1);
  constexpr int64_t kLines = 32, kSide = 100, kSteps = 1100;  // three blocks of steps
  for (const float value : {std::numeric_limits<float>::infinity(), std::nanf(""), 1e-40f, 3.39e38f}) {
    for (const bool in_a : {false, true}) {
      CAPTURE(value);
      CAPTURE(in_a);
      Problem clean(kSide, kSide, kSteps, uniform(0, 1), uniform(0, 1), Products::kPieces3);
      Problem problem = clean;
      const int64_t line = uniform(0, kSide - 1), step = uniform(0, kSteps - 1);
      (in_a ? problem.a_at(line, step) : problem.b_at(step, line)) = value;
      Problem plain = problem;
      plain.g.products = Products::kFma;
      run(team, 1, clean);
      run(team, 1, problem);
      run(team, 1, plain);
      int64_t changed = 0;
      for (int64_t i = 0; i < kSide; ++i) {
        for (int64_t j = 0; j < kSide; ++j) {
          const float before = clean.c_at(i, j), got = problem.c_at(i, j), expected = plain.c_at(i, j);
          const int64_t at = in_a ? i : j;
          CAPTURE(at);
          CAPTURE(line);
          if (at / kLines != line / kLines) {
            REQUIRE(std::bit_cast<uint32_t>(before) == std::bit_cast<uint32_t>(got));
          } else if (at != line) {
            // The block of steps with the special value is a chain of multiply-adds, and the other blocks are not.
            REQUIRE(std::abs(before - got) <= 1e-3f);
            changed += before != got;
          } else if (std::isfinite(expected)) {
            REQUIRE(std::abs(expected - got) <= 1e-3f + 1e-6f * std::abs(expected));
          } else {
            REQUIRE((std::isnan(expected) ? std::isnan(got) : got == expected));
          }
        }
      }
      REQUIRE(changed > 0);
    }
  }
}

TEST_CASE("zeros leave what is added to as it is, however small") {
  Team team(1);
  for (const bool all : {false, true}) {
    Problem problem(64, 64, 96, false, false, Products::kPieces3);
    problem.g.epilogue.accumulate = true;
    for (int64_t i = 0; i < 64; i += all ? 1 : 3)
      for (int64_t p = 0; p < 96; ++p) problem.a_at(i, p) = 0;
    for (float& x : problem.c) x = 1e-41f;
    run(team, 1, problem);
    for (int64_t i = 0; i < 64; i += all ? 1 : 3)
      for (int64_t j = 0; j < 64; ++j) REQUIRE(problem.c_at(i, j) == 1e-41f);
  }
}

TEST_CASE("a consumer is given every block of a product by pieces once") {
  struct Collected {
    std::vector<float> to;
    int64_t ld;
    static void take(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns, const float* tile,
                     int64_t ld) noexcept {
      const auto* self = static_cast<const Collected*>(context);
      auto* to = const_cast<float*>(self->to.data());
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) to[(row + i) * self->ld + column + j] += tile[i * ld + j];
    }
  };
  Team team(3);
  for (int round = 0; round < 16; ++round) {
    // One block of steps, whose packed B fits into the second cache, two blocks, or one whose packed B does not fit.
    const int64_t m = uniform(48, round % 4 ? 130 : 70), n = round % 4 ? uniform(48, 130) : uniform(400, 420);
    const int64_t k = round % 4 == 0 ? uniform(450, 512) : round % 4 == 1 ? uniform(520, 700) : uniform(64, 150);
    Problem problem(m, n, k, true, false, uniform(0, 2) ? Products::kPieces3 : Products::kPieces2);
    problem.g.epilogue.accumulate = uniform(0, 1);
    // Multiply-adds make a block in between.
    if (uniform(0, 1)) problem.a[uniform(0, 1) ? 0 : problem.a.size() / 2] = 1e36f;
    problem.with_sums = uniform(0, 1);
    problem.with_bias = uniform(0, 1);
    if (uniform(0, 1)) problem.g.epilogue.activation = Activation::kTanh;
    Problem expected = problem;
    run(team, 1, expected);
    for (int lanes : {1, 3}) {
      Problem got = problem;
      Collected collected{std::vector<float>(static_cast<size_t>(m * n)), n};
      got.g.epilogue.consumer = {Collected::take, &collected, {collected.to.data()}, n};
      run(team, lanes, got);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) REQUIRE(collected.to[static_cast<size_t>(i * n + j)] == expected.c_at(i, j));
      REQUIRE(got.sums == expected.sums);
    }
  }
}

TEST_CASE("products that are too small for pieces are made by multiply-adds") {
  Team team(1);
  for (const auto& [m, n, k] : {std::tuple{1, 200, 200}, std::tuple{200, 10, 200}, std::tuple{200, 200, 8},
                                std::tuple{0, 64, 64}, std::tuple{64, 0, 64}, std::tuple{64, 64, 0}}) {
    Problem problem(m, n, k, uniform(0, 1), uniform(0, 1), Products::kPieces3);
    CHECK_FALSE(by_pieces(problem.g));
    Problem plain = problem;
    plain.g.products = Products::kFma;
    run(team, 1, problem);
    run(team, 1, plain);
    CHECK(same(problem.c, plain.c));
  }
}
