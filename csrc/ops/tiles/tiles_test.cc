#include "ops/tiles/tiles.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "ops/testing.h"
#include "ops/tiles/measured_product.h"
#include "ops/tiles/tiles_amx.h"
#include "ops/tiles/tiles_dot.h"
#include "runtime/cpu.h"
#include "runtime/tile_unit.h"

using namespace gradring;
using testing::dots_as_intel_says;
using testing::for_each_isa;
using testing::random_bits;
using testing::uniform;

namespace {

// The definition, step by step, with the processor's or the library's fused multiply-add.
float flush(float x) { return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

float fused(float a, float b, float c) {
  const float r = std::fma(a, b, c);
  if (std::abs(r) > 0x1p-126f || std::isnan(r)) return r;
  // Near the least normal number: find what the sum would be with a larger exponent.
  const float scaled = std::fma(a * 0x1p40f, b, c * 0x1p40f);
  return std::abs(scaled) < 0x1p-86f ? std::copysign(0.0f, scaled) : r;
}

float wide(uint16_t bits) { return flush(std::bit_cast<float>(uint32_t{bits} << 16)); }

void add_product(const uint16_t* a, const uint16_t* b, int rows, float* c, int64_t ldc) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < kTileSide; ++j) {
      float sums[2] = {0, 0};
      for (int odd = 0; odd < 2; ++odd)
        for (int p = 0; p < 16; ++p)
          sums[odd] = fused(wide(a[i * 32 + 2 * p + odd]), wide(b[p * 32 + 2 * j + odd]), sums[odd]);
      const float both = fused(sums[0], 1, sums[1]);
      c[i * ldc + j] = fused(flush(c[i * ldc + j]), 1, both);
    }
  }
}

void reference(const TileBlockWork& w, int pieces) {
  using Pass = std::vector<std::pair<int, int>>;
  static const std::vector<std::vector<Pass>> kPasses = {
      {{{0, 0}}}, {{{1, 0}, {0, 0}, {0, 1}}}, {{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}}, {{0, 0}}}};
  for (int i = 0; i < w.down; ++i)
    for (int j = 0; j < w.across; ++j) {
      float* c = w.c + i * 16 * w.ldc + j * 16;
      if (!w.add_to_c)
        for (int r = 0; r < w.rows; ++r)
          for (int s = 0; s < 16; ++s) c[r * w.ldc + s] = 0;
      for (const Pass& pass : kPasses[static_cast<size_t>(pieces - 1)])
        for (int64_t block = 0; block < w.step_blocks; ++block)
          for (const auto& [pa, pb] : pass)
            add_product(w.a + i * w.a_down + block * w.a_along + pa * w.a_piece,
                        w.b + j * w.b_across + block * w.b_along + pb * w.b_piece, w.rows, c, w.ldc);
    }
}

// The definition of vdpbf16ps.
void dot_reference(const TileBlockWork& w) {
  for (int i = 0; i < w.down * w.rows; ++i) {
    for (int j = 0; j < w.across * 16; ++j) {
      const int tile = i / w.rows, row = i % w.rows;
      float& c = w.c[(tile * 16 + row) * w.ldc + j];
      if (!w.add_to_c) c = 0;
      for (int64_t block = 0; block < w.step_blocks; ++block) {
        const uint16_t* const a = w.a + tile * w.a_down + block * w.a_along + row * 32;
        const uint16_t* const b = w.b + j / 16 * w.b_across + block * w.b_along + j % 16 * 2;
        for (int p = 0; p < 16; ++p)
          for (int odd = 1; odd >= 0; --odd) c = fused(wide(a[2 * p + odd]), wide(b[p * 32 + odd]), flush(c));
      }
    }
  }
}

bool same(float x, float y) {
  return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y) || (std::isnan(x) && std::isnan(y));
}

// bf16 numbers of one kind: ordinary; of all exponents; tiny, so that products are subnormal; all bit patterns.
uint16_t draw(int kind) {
  const auto bits = static_cast<uint16_t>(random_bits()());
  const auto with_exponent = [&](int64_t low, int64_t high) {
    return static_cast<uint16_t>((bits & 0x807f) | uniform(low, high) << 7);
  };
  switch (kind) {
    case 0: return with_exponent(120, 130);
    case 1: return with_exponent(40, 210);
    case 2: return with_exponent(50, 72);
    case 3: return uniform(0, 20) ? with_exponent(120, 130) : bits;
    default: return with_exponent(0, 254);
  }
}

struct Problem {
  TileBlockWork work;
  std::vector<uint16_t> a_memory, b_memory;
  std::vector<float> c;
  int pieces;

  Problem(int kind, int count) : pieces(count) {
    work.down = static_cast<int>(uniform(1, 2)), work.across = static_cast<int>(uniform(1, 2));
    work.rows = uniform(0, 1) ? 16 : static_cast<int>(uniform(1, 16));
    work.step_blocks = uniform(0, 4);
    work.add_to_c = uniform(0, 1);
    work.ldc = 32 + uniform(0, 5);
    // Two ways to lay the tiles out: pieces inside step blocks, or step blocks inside pieces.
    if (uniform(0, 1)) {
      work.a_piece = work.b_piece = kTileElements;
      work.a_along = work.b_along = pieces * kTileElements;
    } else {
      work.a_piece = work.b_piece = work.step_blocks * kTileElements;
    }
    work.a_down = work.b_across = pieces * work.step_blocks * kTileElements;
    const auto elements = static_cast<size_t>(2 * pieces * work.step_blocks * kTileElements + 32);
    a_memory.resize(elements), b_memory.resize(elements);
    for (uint16_t& x : a_memory) x = draw(kind);
    for (uint16_t& x : b_memory) x = draw(kind);
    c.resize(static_cast<size_t>(32 * work.ldc));
    for (float& x : c) x = std::bit_cast<float>(uint32_t{draw(kind)} << 16 | static_cast<uint32_t>(uniform(0, 65535)));
    work.a = aligned(a_memory), work.b = aligned(b_memory);
  }

  static const uint16_t* aligned(const std::vector<uint16_t>& memory) {
    return reinterpret_cast<const uint16_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63});
  }

  std::vector<float> result(const std::function<void(const TileBlockWork&)>& multiply) const {
    std::vector<float> out = c;
    TileBlockWork own = work;
    own.c = out.data();
    multiply(own);
    return out;
  }
};

std::vector<float> by(const TileFunctions& functions, const Problem& problem) {
  return problem.result([&](const TileBlockWork& work) {
    functions.configure(work.rows);
    functions.multiply[problem.pieces - 1](work);
    functions.release();
  });
}

void check_against(const TileFunctions& functions, const Problem& problem, const std::vector<float>& expected) {
  const std::vector<float> got = by(functions, problem);
  for (size_t i = 0; i < got.size(); ++i) {
    if (same(got[i], expected[i])) continue;
    CAPTURE(std::string(functions.name));
    CAPTURE(problem.pieces);
    CAPTURE(i);
    REQUIRE(std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(expected[i]));
  }
}

}  // namespace

TEST_CASE("the tile unit and its emulation give the bits of the definition") {
  for (int round = 0; round < 400; ++round) {
    const Problem problem(round % 5, 1 + round % 3);
    CAPTURE(round);
    const auto expected = problem.result([&](const TileBlockWork& work) { reference(work, problem.pieces); });
    for_each_isa([&] { check_against(emulated_tiles(), problem, expected); });
    if (const TileFunctions* unit = unit_tiles()) check_against(*unit, problem, expected);
  }
}

TEST_CASE("sums next to the least normal number are flushed as the definition says") {
  // With these, a sum lies within a few units of the last place of 2^-126, or between it and the number below.
  for (int round = 0; round < 200; ++round) {
    Problem problem(0, 1);
    if (problem.work.step_blocks == 0) continue;
    problem.work.add_to_c = true;
    auto* a = const_cast<uint16_t*>(problem.work.a);
    auto* b = const_cast<uint16_t*>(problem.work.b);
    const int64_t used = 2 * problem.work.step_blocks * kTileElements;
    for (int64_t i = 0; i < used; ++i) a[i] = b[i] = 0;
    for (int64_t i = 0; i < used; ++i) {
      const auto random = random_bits()();
      a[i] = static_cast<uint16_t>((random & 0x807f) | static_cast<uint64_t>(uniform(0, 3) ? 0 : uniform(1, 70)) << 7);
      b[i] = static_cast<uint16_t>((random >> 16 & 0x807f) | static_cast<uint64_t>(uniform(60, 130)) << 7);
    }
    for (float& x : problem.c) {
      x = std::bit_cast<float>(static_cast<uint32_t>((random_bits()() & 0x80000000) | 0x00800000) +
                               static_cast<uint32_t>(uniform(0, 4)));
    }
    CAPTURE(round);
    const auto expected = problem.result([&](const TileBlockWork& work) { reference(work, 1); });
    for_each_isa([&] { check_against(emulated_tiles(), problem, expected); });
    if (const TileFunctions* unit = unit_tiles()) check_against(*unit, problem, expected);
  }
}

TEST_CASE("vdpbf16ps gives the bits of its definition in every shape") {
  const TileFunctions* const dots = dot_tiles();
  if (!dots || !dots_as_intel_says()) return;
  for (int round = 0; round < 400; ++round) {
    Problem problem(round % 5, 1);
    problem.work.rows = 1 + round % 16;
    CAPTURE(round);
    CAPTURE(problem.work.rows);
    CAPTURE(problem.work.add_to_c);
    const auto expected = problem.result(dot_reference);
    // `expected` also has the memory beside the tiles of C, which the functions must leave as it was.
    check_against(*dots, problem, expected);
  }
}

TEST_CASE("vdpbf16ps agrees with float64") {
  const TileFunctions* const dots = dot_tiles();
  if (!dots) return;
  for (int round = 0; round < 100; ++round) {
    const Problem problem(0, 1);
    const TileBlockWork& w = problem.work;
    const std::vector<float> got = by(*dots, problem);
    for (int64_t i = 0; i < 16 * w.down; ++i) {
      if (i % 16 >= w.rows) continue;
      for (int64_t j = 0; j < 16 * w.across; ++j) {
        const auto at = static_cast<size_t>(i * w.ldc + j);
        double sum = w.add_to_c ? static_cast<double>(problem.c[at]) : 0, magnitude = std::abs(sum);
        for (int64_t step = 0; step < 32 * w.step_blocks; ++step) {
          const int64_t block = step / 32, p = step % 32 / 2, odd = step % 2;
          const double term =
              static_cast<double>(wide(w.a[i / 16 * w.a_down + block * w.a_along + i % 16 * 32 + 2 * p + odd])) *
              static_cast<double>(wide(w.b[j / 16 * w.b_across + block * w.b_along + p * 32 + j % 16 * 2 + odd]));
          sum += term, magnitude += std::abs(term);
        }
        const double bound = 0x1p-24 * static_cast<double>(32 * w.step_blocks) * magnitude;
        REQUIRE(std::abs(static_cast<double>(got[at]) - sum) <= bound);
      }
    }
  }
}

TEST_CASE("products of pieces by the table of vdpbf16ps are those of the emulation") {
  const TileFunctions* const dots = dot_tiles();
  if (!dots) return;
  for (int round = 0; round < 20; ++round) {
    const Problem problem(round % 5, 2 + round % 2);
    check_against(*dots, problem, by(emulated_tiles(), problem));
  }
}

TEST_CASE("the sums of the measured product are exact in any order") {
  MeasuredProduct product;
  product.fill();
  const TileBlockWork& w = product.work;
  for (int i = 0; i < 32; ++i) {
    for (int j = 0; j < 32; ++j) {
      double above = 0, below = 0;  // the sums of the positive and of the negative products
      for (int64_t step = 0; step < 32 * w.step_blocks; ++step) {
        const int64_t block = step / 32, p = step % 32 / 2, odd = step % 2;
        const double term =
            static_cast<double>(wide(w.a[i / 16 * w.a_down + block * w.a_along + i % 16 * 32 + 2 * p + odd])) *
            static_cast<double>(wide(w.b[j / 16 * w.b_across + block * w.b_along + p * 32 + j % 16 * 2 + odd]));
        REQUIRE(std::nearbyint(term * 0x1p16) == term * 0x1p16);
        (term > 0 ? above : below) += term;
      }
      // Every sum of some of the products lies between these.
      REQUIRE(above <= 256);
      REQUIRE(below >= -256);
    }
  }
}

TEST_CASE("a thread that ran before the permission was asked for uses the unit") {
  // Run alone (-tc), this test is the first to ask.
  Problem problem(0, 3);
  std::vector<float> got;
  std::thread early([&] { got = by(active_tiles(), problem); });
  early.join();
  const auto expected = problem.result([&](const TileBlockWork& work) { reference(work, problem.pieces); });
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(same(got[i], expected[i]));
}

TEST_CASE("functions that compute wrong sums are found") {
  CHECK(sums_are_right(emulated_tiles()));
  if (const TileFunctions* unit = unit_tiles()) CHECK(sums_are_right(*unit));
#ifdef GRADRING_HAS_DOT
  if (has_avx512_bf16()) CHECK(sums_are_right(avx512_bf16_tiles));
#endif
  TileFunctions wrong = emulated_tiles();
  wrong.multiply[0] = [](const TileBlockWork&) noexcept {};
  CHECK_FALSE(sums_are_right(wrong));
  wrong.multiply[0] = [](const TileBlockWork& work) noexcept {
    emulated_tiles().multiply[0](work);
    work.c[33] = std::nextafter(work.c[33], 10.0f);  // one element, by one rounding
  };
  CHECK_FALSE(sums_are_right(wrong));
}

TEST_CASE("the functions that products use follow the unit's state") {
  const TileUnit state = tile_unit();
  CHECK(tile_unit() == state);
#ifdef GRADRING_HAS_AMX
  CHECK((unit_tiles() != nullptr) == (state == TileUnit::kPermitted));
#else
  CHECK(unit_tiles() == nullptr);  // a build for one instruction set
#endif
  CHECK(&active_tiles() == (unit_tiles() ? unit_tiles() : &emulated_tiles()));
  emulate_tiles(true);
  CHECK(&active_tiles() == &emulated_tiles());
  emulate_tiles(false);
  CHECK((tile_unit_advantage() > 0) == (unit_tiles() != nullptr));
  CHECK(tile_unit_advantage() == tile_unit_advantage());
#ifdef GRADRING_HAS_DOT
  CHECK((dot_tiles() != nullptr) == has_avx512_bf16());
#else
  CHECK(dot_tiles() == nullptr);
#endif
  CHECK((dot_advantage() > 0) == (dot_tiles() != nullptr));
  CHECK(dot_advantage() == dot_advantage());
  CHECK((measure_tile_flops(1, true) > 0) == (dot_tiles() != nullptr));
}
