// What the tests of ops share: shapes for trials, and the ops of each theme. Include this file after cuda/device.h.
#pragma once

#include <doctest/doctest.h>

#include <initializer_list>
#include <iterator>
#include <span>
#include <vector>

#include "ops/cuda_tests/trial.h"

namespace gradring::testing {

#ifdef GRADRING_SOFTWARE_TSAN
inline constexpr bool kLongArrays =
    false;  // a thousand threads, each of which takes ThreadSanitizer a millisecond to make
#else
inline constexpr bool kLongArrays = true;
#endif

// Flat arrays: some are so long that each thread of a small device takes several vectors at once.
inline std::vector<int64_t> some_shape(Random& random) {
  if (kLongArrays && chance(random, 12)) {
    const int64_t passes[] = {8192, 16384, 24576, 32768, 49152, 65536};
    return {passes[between(random, 0, std::size(passes) - 1)] + between(random, -5, 5)};
  }
  if (chance(random, 3)) return {between(random, 0, 5), edge(random, 600)};
  return {edge(random, 3000)};
}
// A random shape of rows and columns; some have more columns than a warp handles.
inline std::vector<int64_t> matrix(Random& random) {
  if (chance(random, 4)) return {between(random, 0, 5), edge(random, 5000)};
  return {edge(random, 70), edge(random, 140)};
}
// The same for kernels that keep a row in shared memory: some rows are at the edge of more threads per block, or of rows too long to
// be kept, float32's or float64's.
inline std::vector<int64_t> cached_matrix(Random& random) {
  if (!chance(random, 10)) return matrix(random);
  const int64_t limit = static_cast<int64_t>(device::kCachedBytes) - 16;
  const int64_t edges[] = {12288, limit / 8, limit / 8 + 1, 16384, 16385, limit / 4, limit / 4 + 1};
  return {between(random, 1, 2), edges[between(random, 0, std::size(edges) - 1)]};
}

inline void want_some(Random& random, Trial& t, std::initializer_list<const char*> results) {
  for (const char* each : results) t.want(each, chance(random, 2));
}

// An op, and the function that fills in a trial of it at random.
struct Entry {
  const char* op;
  void (*make)(Random& random, Trial& trial);
};
using Entries = std::span<const Entry>;

// The dtype of a trial: all that the op's schema allows take turns.
Dtype dtype_of(const Entry& entry, int turn);

// Checks shapes() trials of each op. A test per theme calls it, because ThreadSanitizer needs minutes for some of them: ctest runs
// each file of tests as an entry of its own.
void check_entries(Entries entries);

// The ops of each theme, in <theme>_test.cu.
Entries batch_norm_ops();
Entries element_ops();
Entries index_ops();
Entries loss_ops();
Entries optimizer_ops();
Entries product_ops();
Entries row_ops();
Entries step_ops();

}  // namespace gradring::testing
