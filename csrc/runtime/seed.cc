#include "runtime/seed.h"

#include <atomic>

#include "runtime/philox.h"

namespace gradring {

namespace {

std::atomic<uint64_t> base{0};
std::atomic<uint64_t> draws{0};

}  // namespace

void set_seed(uint64_t seed) noexcept {
  base.store(seed, std::memory_order_relaxed);
  draws.store(0, std::memory_order_relaxed);
}

uint64_t next_seed() noexcept {
  const uint64_t seed = base.load(std::memory_order_relaxed);
  const uint64_t draw = draws.fetch_add(1, std::memory_order_relaxed);
  const PhiloxWords words = philox({static_cast<uint32_t>(draw), static_cast<uint32_t>(draw >> 32), 0x65616765, 0},
                                   static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return words[0] | uint64_t{words[1]} << 32;
}

}  // namespace gradring
