// | variable | writer       | readers  | order   | why                        |
// |----------|--------------|----------|---------|----------------------------|
// | chosen   | set_bf16_way | bf16_way | relaxed | a number that stands alone |
#include "ops/bf16_matmul/bf16_matmul.h"

#include <atomic>

#include "ops/bf16_matmul/kernels.h"
#include "ops/tiles/tiles.h"
#include "runtime/cpu.h"

namespace gradring {

namespace {

std::atomic<Bf16Way> chosen{Bf16Way::kFastest};

// Packing takes a part of the time, so a unit that is only a little faster than multiply-adds would not pay.
constexpr double kWorthwhileUnit = 2;
// vdpbf16ps reads tiles that are packed and checked like the unit's. This takes less time than multiply-adds lose by converting and by
// working below their peak, so even the same rate would pay (docs/products.md). Known processors do it at half or at twice the
// rate of multiply-adds; this lies far enough from both for a measurement that other work disturbs.
constexpr double kWorthwhileDots = 1.3;

// The functions that multiply the tiles of a product; null for multiply-adds.
const TileFunctions* tile_functions_for(const Bf16MatmulArguments& g) noexcept {
  if (g.float16 || !fills_tiles(g)) return nullptr;  // tiles of AVX-512 are of bfloat16
  switch (bf16_way()) {
    case Bf16Way::kTiles: return &active_tiles();
    case Bf16Way::kDots: return dot_tiles();
    default: return nullptr;
  }
}

}  // namespace

void set_bf16_way(Bf16Way way) noexcept { chosen.store(way, std::memory_order_relaxed); }

Bf16Way fastest_bf16_way(double unit_advantage, double dot_advantage) noexcept {
  if (unit_advantage >= kWorthwhileUnit) return Bf16Way::kTiles;
  return dot_advantage >= kWorthwhileDots ? Bf16Way::kDots : Bf16Way::kWidened;
}

Bf16Way bf16_way() noexcept {
  const Bf16Way way = chosen.load(std::memory_order_relaxed);
  if (way != Bf16Way::kFastest) return way;
  if (active_isa() != Isa::kAvx512) return Bf16Way::kWidened;
  // Where the unit is fast enough, vdpbf16ps need not be measured.
  const double unit = tile_unit_advantage();
  return fastest_bf16_way(unit, unit >= kWorthwhileUnit ? 0 : dot_advantage());
}

ScratchBytes bf16_matmul_scratch(const Bf16MatmulArguments& arguments, int) noexcept {
  if (arguments.m <= 0 || arguments.n <= 0) return {};
  return GRADRING_KERNELS(bf16_matmul_kernels).scratch(arguments, tile_functions_for(arguments) != nullptr);
}

int bf16_matmul_lanes(const Bf16MatmulArguments& g, int available) noexcept {
  // Each `worth` multiply-adds, which take a few microseconds, justify another lane. A product with a single row is limited by
  // the memory that holds B. Small operands are converted by each lane.
  const TileFunctions* const tiles = tile_functions_for(g);
  const double worth = g.m == 1                        ? 80000.0
                       : tiles && tiles != dot_tiles() ? 1048576.0
                       : tiles || is_small(g)          ? 262144.0
                                                       : 131072.0;
  const double most = static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) / worth;
  return most >= available ? available : most < 2 ? 1 : static_cast<int>(most);
}

void bf16_matmul(const Lane& lane, const Bf16MatmulArguments& arguments) noexcept {
  GRADRING_KERNELS(bf16_matmul_kernels).run(lane, arguments, tile_functions_for(arguments));
}

}  // namespace gradring
