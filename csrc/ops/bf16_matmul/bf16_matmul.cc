// | variable | writer       | readers   | order   | why                        |
// |----------|--------------|-----------|---------|----------------------------|
// | chosen   | set_bf16_way | use_tiles | relaxed | a number that stands alone |
#include "ops/bf16_matmul/bf16_matmul.h"

#include <atomic>

#include "ops/bf16_matmul/kernels.h"
#include "ops/tiles/tiles.h"

namespace gradring {

namespace {

std::atomic<Bf16Way> chosen{Bf16Way::kFastest};

// Packing takes a part of the time, so a unit that is only a little faster than multiply-adds would not pay.
constexpr double kWorthwhileAdvantage = 2;

bool use_tiles(const Bf16MatmulArguments& g) noexcept {
  if (g.float16) return false;  // tiles of AVX-512 are of bfloat16
  switch (chosen.load(std::memory_order_relaxed)) {
    case Bf16Way::kWidened: return false;
    case Bf16Way::kTiles: return true;
    default: break;
  }
#if defined(__x86_64__) && !defined(GRADRING_ONE_ISA)
  return active_isa() == Isa::kAvx512 && tile_unit_advantage() >= kWorthwhileAdvantage;
#else
  return false;
#endif
}

}  // namespace

void set_bf16_way(Bf16Way way) noexcept { chosen.store(way, std::memory_order_relaxed); }

ScratchBytes bf16_matmul_scratch(const Bf16MatmulArguments& arguments, int) noexcept {
  if (arguments.m <= 0 || arguments.n <= 0) return {};
  return GRADRING_KERNELS(bf16_matmul_kernels).scratch(arguments, use_tiles(arguments));
}

int bf16_matmul_lanes(const Bf16MatmulArguments& g, int available) noexcept {
  // Each `worth` multiply-adds, which take a few microseconds, justify another lane. A product with a single row is limited by
  // the memory that holds B.
  const double worth = g.m == 1 ? 80000.0 : use_tiles(g) ? 1048576.0 : 131072.0;
  const double most = static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) / worth;
  return most >= available ? available : most < 2 ? 1 : static_cast<int>(most);
}

void bf16_matmul(const Lane& lane, const Bf16MatmulArguments& arguments) noexcept {
  GRADRING_KERNELS(bf16_matmul_kernels).run(lane, arguments, use_tiles(arguments));
}

}  // namespace gradring
