// | variable | writer              | readers    | order   | why                        |
// |----------|---------------------|------------|---------|----------------------------|
// | active   | active_isa, set_isa | active_isa | relaxed | a number that stands alone |
#include "runtime/cpu.h"

#include <sched.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/cgroup.h"

namespace gradring {

namespace {

#if defined(__x86_64__)
// Not every compiler's __builtin_cpu_supports knows this name.
bool has_f16c() noexcept {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

Isa detect() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (avx512) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kBase;
}

Isa wanted() noexcept {
  const Isa best = detected_isa();
  const char* name = std::getenv("GRADRING_ISA");
  if (!name) return best;
  for (Isa isa : {Isa::kBase, Isa::kAvx2, Isa::kAvx512}) {
    if (std::strcmp(name, isa_name(isa)) == 0) return std::min(isa, best);
  }
  if (std::strcmp(name, "amx") == 0) return best;  // the highest level with tiles of bf16: see tile_unit.h
  std::fprintf(stderr, "gradring: GRADRING_ISA is '%s', expected base, avx2, avx512 or amx: ignored\n", name);
  return best;
}

// -1: not yet decided.
std::atomic<int> active{-1};

}  // namespace

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    default: return "base";
  }
}

Isa detected_isa() noexcept {
  static const Isa isa = detect();
  return isa;
}

Isa active_isa() noexcept {
  int isa = active.load(std::memory_order_relaxed);
  if (isa < 0) {
    isa = static_cast<int>(wanted());
    active.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

bool set_isa(Isa isa) noexcept {
  if (isa > detected_isa()) return false;
  active.store(static_cast<int>(isa), std::memory_order_relaxed);
  return true;
}

bool has_avx512_bf16() noexcept {
#if defined(__x86_64__)
  // Leaf 7 says in its subleaf 0 how many subleaves it has, and has the bit in subleaf 1. detected_isa() has asked for the registers.
  constexpr unsigned kBf16 = 1u << 5;
  unsigned int a = 0, b = 0, c = 0, d = 0;
  if (detected_isa() != Isa::kAvx512 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kBf16) != 0;
#else
  return false;
#endif
}

int usable_cores() noexcept {
  cpu_set_t mask;
  int cores = 1;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cores = CPU_COUNT(&mask);
  const double quota = cgroup_cpu_quota();
  if (quota < cores) cores = static_cast<int>(std::ceil(quota));
  return std::max(cores, 1);
}

CacheSizes cache_sizes() noexcept {
  const auto known = [](int name, long fallback) {
    const long size = sysconf(name);
    return size > 0 ? size : fallback;
  };
  return {known(_SC_LEVEL1_DCACHE_SIZE, 32 << 10), known(_SC_LEVEL2_CACHE_SIZE, 512 << 10),
          known(_SC_LEVEL3_CACHE_SIZE, 4 << 20)};
}

}  // namespace gradring
