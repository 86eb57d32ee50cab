#include "ops/bf16_matmul/bf16_matmul.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/bf16_matmul/bf16_matmul_ref.h"
#include "ops/bf16_matmul/kernels.h"
#include "ops/testing.h"
#include "ops/tiles/tiles.h"

using namespace gradring;
using testing::dots_as_intel_says;
using testing::uniform;

namespace {

bool in_float16 = false;  // whether the problems of a test are of float16, and not of bfloat16

// Every instruction set with multiply-adds, with emulated tiles, and with the tile unit and vdpbf16ps where they exist. `float16_too`:
// multiply-adds of float16, too.
template <class Body>
void for_each_way(const Body& body, bool float16_too = false) {
  testing::for_each_isa([&] {
    in_float16 = float16_too;
    if (float16_too) body();
    in_float16 = false;
    set_bf16_way(Bf16Way::kWidened);
    body();
    set_bf16_way(Bf16Way::kTiles);
    emulate_tiles(true);
    body();
    emulate_tiles(false);
    if (unit_tiles()) body();
    set_bf16_way(Bf16Way::kDots);
    if (dot_tiles()) body();
    set_bf16_way(Bf16Way::kFastest);
  });
}

std::vector<Bfloat> halves(int64_t n) {
  std::vector<Bfloat> made;
  for (const double value : testing::normal<double>(n)) made.push_back(reference::to_narrow(value, in_float16));
  return made;
}

// Memory for an array of either type, filled with a guard value that no result has.
struct Memory {
  std::vector<float> floats;
  std::vector<Bfloat> narrow;
  HalfOrFloat array;

  Memory(int64_t n, bool half, bool random) {
    if (half) {
      narrow =
          random ? halves(n) : std::vector<Bfloat>(static_cast<size_t>(n), reference::to_narrow(12345, in_float16));
    } else {
      floats = random ? testing::normal<float>(n) : std::vector<float>(static_cast<size_t>(n), 12345.0f);
    }
    point();
  }
  Memory(const Memory& other) : floats(other.floats), narrow(other.narrow), array(other.array) { point(); }
  Memory& operator=(const Memory&) = delete;
  void point() {
    array.half = !narrow.empty();
    array.data = array.half ? static_cast<void*>(narrow.data()) : floats.data();
  }
  size_t size() const { return array.half ? narrow.size() : floats.size(); }
  double at(size_t i) const { return reference::element_of(array, static_cast<int64_t>(i), in_float16); }
  bool same_bits(const Memory& other) const {
    for (size_t i = 0; i < size(); ++i) {
      if (array.half ? narrow[i].bits != other.narrow[i].bits : std::memcmp(&floats[i], &other.floats[i], 4) != 0)
        return false;
    }
    return true;
  }
};

// One random problem with its memory; odd leading dimensions, and guard values between the rows.
struct Problem {
  Bf16MatmulArguments g;
  std::vector<Bfloat> a, b;
  Memory c, pre, bias, mask, sums;

  Problem(int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b, bool half)
      : c(m * (n + 3) + 1, half, false),
        pre(m * (n + 3) + 1, half, false),
        bias(n + 1, uniform(0, 1), true),
        mask(m * (n + 1) + 1, uniform(0, 1), true),
        sums(n + 1, uniform(0, 1), false) {
    g.m = m, g.n = n, g.k = k, g.trans_a = trans_a, g.trans_b = trans_b, g.float16 = in_float16;
    g.lda = (trans_a ? m : k) + uniform(0, 3);
    g.ldb = (trans_b ? k : n) + uniform(0, 3);
    g.ldc = n + uniform(0, 3);
    g.mask_ld = n + uniform(0, 1);
    a = halves((trans_a ? k : m) * g.lda + 1);
    b = halves((trans_b ? n : k) * g.ldb + 1);
  }
  Problem(const Problem&) = default;
  Problem& operator=(const Problem&) = delete;

  // Bits say which parts of the epilogue there are.
  void use(int64_t parts, Activation activation, Activation derivative) {
    g.a = a.data(), g.b = b.data(), g.c = c.array;
    g.bias = (parts & 1) != 0 ? bias.array : HalfOrFloat{};
    g.pre = (parts & 2) != 0 ? pre.array : HalfOrFloat{};
    g.column_sums = (parts & 4) != 0 ? sums.array : HalfOrFloat{};
    g.activation = activation;
    g.mask = derivative;
    g.mask_source = derivative == Activation::kNone ? HalfOrFloat{} : mask.array;
  }
};

void run(Team& team, int lanes, const Bf16MatmulArguments& g) {
  const ScratchBytes bytes = bf16_matmul_scratch(g, lanes);
  team.reserve(bytes.per_lane, bytes.shared);
  team.run(lanes, [&](const Lane& lane) { bf16_matmul(lane, g); });
}

// Whether each element is within `bound` of float32's rounding, and within one more rounding if it has 16 bits.
bool close(const Memory& got, const Memory& expected, double bound) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double want = expected.at(i), error = std::abs(got.at(i) - want);
    if (std::isnan(want) && std::isnan(got.at(i))) continue;
    if (want == got.at(i)) continue;
    const double of_half = in_float16 ? std::abs(want) * 0x1p-10 + 0x1p-24 : std::abs(want) * 0x1p-7;
    const double rounding = got.array.half ? of_half : 0;
    if (!(error <= bound * std::numeric_limits<float>::epsilon() + rounding)) return false;
  }
  return true;
}

constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu, Activation::kGelu,
                                       Activation::kSilu, Activation::kTanh, Activation::kSigmoid};

void check(Team& team, int64_t m, int64_t n, int64_t k) {
  Problem problem(m, n, k, uniform(0, 1), uniform(0, 1), uniform(0, 1));
  const int64_t parts = uniform(0, 7);
  const Activation activation = kActivations[uniform(0, 5)];
  const Activation derivative = uniform(0, 2) == 0 ? kActivations[uniform(1, 5)] : Activation::kNone;
  Problem wanted = problem;
  wanted.use(parts, activation, derivative);
  reference::bf16_matmul(wanted.g);
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(problem.g.trans_a);
  CAPTURE(problem.g.trans_b);
  CAPTURE(parts);
  CAPTURE(static_cast<int>(activation));
  CAPTURE(static_cast<int>(derivative));
  CAPTURE(problem.c.array.half);
  // A derivative at a point that is no output of the activation, such as 1 - y * y for a large y, multiplies errors.
  const double bound = (derivative == Activation::kNone ? 64 : 2048) * (std::sqrt(static_cast<double>(k)) + 4);
  std::vector<Problem> first;
  for (const int lanes : {1, 2, 3, 8}) {
    Problem got = problem;
    got.use(parts, activation, derivative);
    run(team, lanes, got.g);
    CHECK(close(got.c, wanted.c, bound));
    CHECK(close(got.pre, wanted.pre, bound));
    CHECK(close(got.sums, wanted.sums, bound * (static_cast<double>(m) + 1)));
    if (first.empty()) {
      first.push_back(got);
    } else {
      CHECK(got.c.same_bits(first[0].c));
      CHECK(got.pre.same_bits(first[0].pre));
      CHECK(got.sums.same_bits(first[0].sums));
    }
  }
}

}  // namespace

TEST_CASE("bf16_matmul agrees with the reference, the same bits for any number of lanes") {
  for_each_way(
      [] {
        Team team(8);
        for (int round = 0; round < 150; ++round) check(team, uniform(0, 40), uniform(0, 90), uniform(0, 90));
        for (int round = 0; round < 40; ++round) check(team, uniform(0, 5), uniform(0, 300), uniform(0, 300));
        for (int round = 0; round < 20; ++round) check(team, uniform(0, 200), uniform(0, 5), uniform(0, 300));
      },
      true);
}

TEST_CASE("bf16_matmul at the sizes where it cuts a product") {
  for_each_way(
      [] {
        Team team(8);
        const Bf16MatmulKernels& kernels = GRADRING_KERNELS(bf16_matmul_kernels);
        for (const int64_t by : {-1, 0, 1}) {
          check(team, kernels.tile_rows + by, kernels.tile_columns + by, 33);
          check(team, kernels.tile_rows * 2 + by, kernels.tile_columns * 2 + by, kernels.steps + by);
          check(team, kernels.block_rows + by, kernels.tile_columns * 2 + by, kernels.steps * 2 + by);
          check(team, kernels.tile_rows + 1, kernels.tile_columns * 9 + by, kernels.steps + 1);
          check(team, kernels.block_rows * 2 + by, 3, 20);
          // The tiles' sizes: the height of a tile, a panel, a block of steps, k whole and cut, and blocks of the cut product.
          check(team, 16 + by, 32 + by, 64 + by);
          check(team, 48 + by, 48 + by, 640 + by);
          check(team, 33, 17 + by, 1024 + by);
        }
        check(team, 513, 5, 650);   // two blocks of rows
        check(team, 9, 1030, 650);  // two blocks of columns
        check(team, 300, 1030, 70);
        check(team, 9500, 17, 7);  // fewer steps than a tile has, and too large to be converted as a whole
        // The sizes from which tiles pay, and up to which operands are converted as a whole.
        for (const int64_t by : {-1, 0, 1}) {
          check(team, 16, 24, 24 + by);
          check(team, 128 + by, 128, 10);
          check(team, 8 + by, 32, 256);
          check(team, 8 + by, 32, 31 + by);
          check(team, 8, 16 + by, 80);
          check(team, 40, 10 + by, 50);
          check(team, 32 + by, 3, 90);
          check(team, 64, 64, 512 + by);
          check(team, 16 + by, 240, 256);
          check(team, 16, 304, 1024 + by);
          check(team, 2, 300 + by, 50);
          check(team, 3, 300, 64 + by);
        }
        // Whole tiles of C, which the products write themselves, and shapes whose C is computed as its transpose if A lies transposed.
        for (const int64_t by : {-1, 0, 1}) {
          for (int round = 0; round < 6; ++round) {
            check(team, 64 + by, 32, 40);
            check(team, 96, 96 + by, 24 + by);
            check(team, 64, 10 + by, 300);
            check(team, 80 + by, 17 + by, 700);
            check(team, 530, 9, 650 + by);
          }
        }
      },
      true);
}

TEST_CASE("bf16_matmul carries NaN and infinity to where the formula says, and rounds ties to even") {
  for_each_way(
      [] {
        Team team(2);
        for (const int64_t m : {1, 3, 20}) {
          for (const int64_t where : {0, 1, 2, 3}) {
            const float special =
                where % 2 == 0 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
            for (int round = 0; round < 8; ++round) {
              Problem problem(m, 37, 70, uniform(0, 1), uniform(0, 1), uniform(0, 1));
              auto& operand = where < 2 ? problem.a : problem.b;
              operand[static_cast<size_t>(uniform(0, static_cast<int64_t>(operand.size()) - 1))] =
                  reference::to_narrow(special, in_float16);
              Problem wanted = problem;
              wanted.use(0, Activation::kNone, Activation::kNone);
              reference::bf16_matmul(wanted.g);
              problem.use(0, Activation::kNone, Activation::kNone);
              run(team, 2, problem.g);
              CHECK(close(problem.c, wanted.c, 2000));
            }
          }
          // 1 + 2^-8 lies halfway between 1 and its successor, 1 + 2^-7 + 2^-8 halfway between two others; in float16 it is 1 + 2^-11.
          for (const bool up : {false, true}) {
            Problem problem(m, 37, 3, false, false, true);
            const double unit = in_float16 ? 0x1p-10 : 0x1p-7, terms[] = {1, unit / 2, up ? unit : 0};
            for (size_t i = 0; i < problem.a.size(); ++i) problem.a[i] = reference::to_narrow(1, in_float16);
            for (int64_t p = 0; p < 3; ++p)
              for (int64_t j = 0; j < 37; ++j)
                problem.b[static_cast<size_t>(p * problem.g.ldb + j)] = reference::to_narrow(terms[p], in_float16);
            problem.use(0, Activation::kNone, Activation::kNone);
            run(team, 1, problem.g);
            for (int64_t i = 0; i < m; ++i)
              CHECK(problem.c.at(static_cast<size_t>(i * problem.g.ldc)) == (up ? 1 + 2 * unit : 1.0));
          }
        }
      },
      true);
}

namespace {

// Numbers whose exponents are in [low, high], with random signs and mantissas; the exponent -127 makes subnormal numbers and zeros.
void fill(std::vector<Bfloat>& numbers, int64_t low, int64_t high) {
  for (Bfloat& x : numbers)
    x.bits = static_cast<uint16_t>(uniform(0, 1) << 15 | (uniform(low, high) + 127) << 7 | uniform(0, 127));
}

// Whether each result is within the roundings of k sums: 2^-24 of the products' magnitudes, and half of the least subnormal
// number for each product and each sum.
bool sums_hold(const Problem& got, const Problem& wanted) {
  const Bf16MatmulArguments& g = got.g;
  auto a = reference::matrix(g.a, g.m, g.k, g.lda, g.trans_a), b = reference::matrix(g.b, g.k, g.n, g.ldb, g.trans_b);
  for (auto* side : {&a, &b})
    for (double& value : *side) value = std::abs(value);
  std::vector<double> scales(static_cast<size_t>(g.m * g.n));
  reference::add_product(scales, a, b, g.m, g.n, g.k);
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      const auto at = static_cast<size_t>(i * g.ldc + j);
      const double want = wanted.c.at(at);
      double bound = static_cast<double>(g.k + 2) * (0x1p-24 * scales[static_cast<size_t>(i * g.n + j)] + 0x1p-149);
      if (got.c.array.half) bound += std::abs(want) * 0x1p-7 + 0x1p-133;
      if (!(std::abs(got.c.at(at) - want) <= bound)) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("subnormal operands, products and sums are kept") {
  struct Exponents {
    int64_t a_low, a_high, b_low, b_high;
  };
  constexpr Exponents kCases[] = {
      {-127, -120, 20, 30},    // subnormal operands of A
      {5, 10, -127, -110},     // of B
      {-72, -68, -62, -58},    // subnormal products whose sums may be normal
      {-63, -60, -60, -56},    // normal products whose differences may be subnormal
      {-56, -40, -56, -40},    // the least that the unit can multiply
      {-127, -127, -127, 60},  // nothing but subnormal numbers
      {-127, 60, -127, 60},    // all exponents
  };
  for_each_way([&] {
    Team team(3);
    for (const Exponents& e : kCases) {
      CAPTURE(e.a_low);
      CAPTURE(e.b_low);
      for (int round = 0; round < (unit_tiles() ? 6 : 2); ++round) {
        const int64_t k = round == 0 ? 1700 : uniform(1, 130);
        Problem first(uniform(1, 70), uniform(1, 70), k, uniform(0, 1), uniform(0, 1), uniform(0, 1));
        fill(first.a, e.a_low, e.a_high);
        fill(first.b, e.b_low, e.b_high);
        Problem wanted = first, second = first;
        for (Problem* problem : {&first, &wanted, &second}) problem->use(0, Activation::kNone, Activation::kNone);
        reference::bf16_matmul(wanted.g);
        run(team, 1, first.g);
        run(team, 3, second.g);
        CAPTURE(k);
        CHECK(sums_hold(first, wanted));
        CHECK(first.c.same_bits(second.c));
      }
    }
  });
}

TEST_CASE("a subnormal sum of one part of k survives the parts after it") {
  for_each_way([] {
    Team team(1);
    Problem problem(33, 40, 1700, false, false, false);
    for (Bfloat& x : problem.a) x = bfloat_from(0);
    for (Bfloat& x : problem.b) x = bfloat_from(1);
    for (int64_t i = 0; i < 33; ++i) problem.a[static_cast<size_t>(i * problem.g.lda)] = bfloat_from(0x1p-130);
    // One row's sum grows in the last part, in numbers that the unit can multiply.
    problem.a[static_cast<size_t>(5 * problem.g.lda + 1699)] = bfloat_from(0x1p-126);
    problem.use(0, Activation::kNone, Activation::kNone);
    run(team, 1, problem.g);
    for (int64_t i = 0; i < 33; ++i)
      for (int64_t j = 0; j < 40; ++j)
        CHECK(problem.c.at(static_cast<size_t>(i * problem.g.ldc + j)) == (i == 5 ? 0x1p-126 + 0x1p-130 : 0x1p-130));
  });
}

TEST_CASE("the tile unit gives the bits of the emulation") {
  if (!unit_tiles()) return;
  Team team(2);
  set_bf16_way(Bf16Way::kTiles);
  for (int round = 0; round < 40; ++round) {
    const int64_t deep = round % 4 == 0 ? 1700 : 200;
    Problem first(uniform(8, 90), uniform(16, 90), uniform(64, deep), uniform(0, 1), uniform(0, 1), uniform(0, 1));
    Problem second = first;
    first.use(7, Activation::kGelu, Activation::kNone);
    second.use(7, Activation::kGelu, Activation::kNone);
    run(team, 1, first.g);
    emulate_tiles(true);
    run(team, 2, second.g);
    emulate_tiles(false);
    CHECK(second.c.same_bits(first.c));
    CHECK(second.sums.same_bits(first.sums));
  }
  set_bf16_way(Bf16Way::kFastest);
}

TEST_CASE("vdpbf16ps computes the products of its way alone") {
  if (!dot_tiles() || !dots_as_intel_says()) return;
  Team team(3);
  for (int round = 0; round < 8; ++round) {
    Problem problem(uniform(8, 40), uniform(32, 70), 32, round % 2, round / 2 % 2, false);
    // It adds -1 before 2^-30, multiply-adds add it after 2^-30, and the unit adds 1 and 2^-30 apart from the rest.
    const double terms[] = {1, 0, 0x1p-30, -1};
    for (int64_t i = 0; i < problem.g.m; ++i)
      for (int64_t p = 0; p < 32; ++p)
        problem.a[static_cast<size_t>(problem.g.trans_a ? p * problem.g.lda + i : i * problem.g.lda + p)] =
            bfloat_from(p < 4 ? terms[p] : 0);
    for (Bfloat& x : problem.b) x = bfloat_from(1);
    for (const Bf16Way way : {Bf16Way::kDots, Bf16Way::kTiles, Bf16Way::kWidened}) {
      Problem got = problem;
      got.use(0, Activation::kNone, Activation::kNone);
      set_bf16_way(way);
      CHECK(bf16_way() == way);
      run(team, 1 + round % 3, got.g);
      for (int64_t i = 0; i < problem.g.m; ++i)
        for (int64_t j = 0; j < problem.g.n; ++j)
          CHECK(got.c.at(static_cast<size_t>(i * problem.g.ldc + j)) == (way == Bf16Way::kDots ? 0x1p-30 : 0));
    }
    set_bf16_way(Bf16Way::kFastest);
  }
}

TEST_CASE("the way of a product follows what was measured") {
  struct Measured {
    double unit, dots;
    Bf16Way expected;
  };
  constexpr Measured kCases[] = {
      {0, 0, Bf16Way::kWidened},  // neither
      {9.7, 0, Bf16Way::kTiles},   {9.7, 1.9, Bf16Way::kTiles},   {2, 1.9, Bf16Way::kTiles},
      {1.9, 0, Bf16Way::kWidened}, {1.9, 0.5, Bf16Way::kWidened},  // a slow unit, as an emulator's
      {1.9, 1.9, Bf16Way::kDots},  {0, 0.5, Bf16Way::kWidened},   {0, 1, Bf16Way::kWidened},
      {0, 1.2, Bf16Way::kWidened}, {0, 1.6, Bf16Way::kDots},      {0, 2, Bf16Way::kDots},
  };
  for (const Measured& measured : kCases) {
    CAPTURE(measured.unit);
    CAPTURE(measured.dots);
    CHECK(fastest_bf16_way(measured.unit, measured.dots) == measured.expected);
  }
  testing::for_each_isa([] {
    const Bf16Way expected =
        active_isa() == Isa::kAvx512 ? fastest_bf16_way(tile_unit_advantage(), dot_advantage()) : Bf16Way::kWidened;
    CHECK(bf16_way() == expected);
  });
}

TEST_CASE("float16 keeps its subnormal numbers, and a result that it cannot hold is infinite") {
  for_each_way(
      [] {
        if (!in_float16) return;
        Team team(2);
        for (const int64_t m : {1, 4, 20}) {
          Problem problem(m, 37, 70, uniform(0, 1), uniform(0, 1), true);
          for (Bfloat& x : problem.a) x = reference::to_narrow(0x1p-24, true);  // the least one
          for (Bfloat& x : problem.b) x = reference::to_narrow(0x1p-1, true);
          problem.use(0, Activation::kNone, Activation::kNone);
          run(team, 2, problem.g);
          for (int64_t j = 0; j < 37; ++j) CHECK(problem.c.at(static_cast<size_t>(j)) == 35 * 0x1p-24);
          for (Bfloat& x : problem.a) x = reference::to_narrow(-65504, true);  // the greatest one
          for (Bfloat& x : problem.b) x = reference::to_narrow(1, true);
          run(team, 2, problem.g);
          for (int64_t j = 0; j < 37; ++j)
            CHECK(problem.c.at(static_cast<size_t>(j)) == -std::numeric_limits<double>::infinity());
        }
      },
      true);
}
