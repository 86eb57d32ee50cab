// Helpers for the kernels' tests: every ISA level that this processor and this build have, and random numbers.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "runtime/cpu.h"
#include "runtime/team.h"

namespace gradring::testing {

template <class Body>
void for_each_isa(const Body& body) {
#ifdef GRADRING_ONE_ISA
  body();
#else
  const Isa before = active_isa();
  for (Isa isa : {Isa::kBase, Isa::kAvx2, Isa::kAvx512}) {
    if (set_isa(isa)) body();
  }
  set_isa(before);
#endif
}

// Whether the processor computes vdpbf16ps as Intel's manual defines it: processors of another maker may add its two products in
// another order, so their last bits may differ.
inline bool dots_as_intel_says() noexcept {
#ifdef __x86_64__
  return __builtin_cpu_is("intel") != 0;
#else
  return false;
#endif
}

inline std::mt19937_64& random_bits() {
  static std::mt19937_64 bits(20240607);
  return bits;
}

inline int64_t uniform(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_bits());
}

// A team of `lanes` threads that lives as long as the program: starting threads anew for each of ten thousand runs takes longer
// than the runs, and kernels must not rely on fresh scratch memory.
inline Team& team_of(int lanes) {
  static std::map<int, Team> teams;
  return teams.try_emplace(lanes, lanes).first->second;
}

template <class T>
std::vector<T> normal(int64_t n, double scale = 1) {
  std::normal_distribution<double> distribution(0, scale);
  std::vector<T> values(static_cast<size_t>(n));
  for (T& value : values) value = static_cast<T>(distribution(random_bits()));
  return values;
}

}  // namespace gradring::testing
