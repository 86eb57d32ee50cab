// | variable | writer                                     | readers            | order   | why                        |
// |----------|--------------------------------------------|--------------------|---------|----------------------------|
// | second   | second_cache_bytes, set_second_cache_bytes | second_cache_bytes | relaxed | a number that stands alone |
#include "runtime/second_cache.h"

#include <atomic>

#include "runtime/cpu.h"

namespace gradring {

namespace {

std::atomic<long> second{0};

}  // namespace

long second_cache_bytes() noexcept {
  const long known = second.load(std::memory_order_relaxed);
  if (known > 0) return known;
  set_second_cache_bytes(0);
  return second.load(std::memory_order_relaxed);
}

void set_second_cache_bytes(long bytes) noexcept {
  second.store(bytes > 0 ? bytes : cache_sizes().l2, std::memory_order_relaxed);
}

}  // namespace gradring
