// Functions that make trials of ops, with random shapes, options and odd values. Each function makes a trial of one op.
#pragma once

#include <initializer_list>
#include <vector>

#include "ops/cuda_tests/trial.h"

namespace gradring::testing {

inline std::vector<int64_t> some_shape(Random& random, int64_t most = 3000) {
  std::vector<int64_t> shape{edge(random, most)};
  if (chance(random, 3)) shape = {between(random, 0, 5), edge(random, most / 5)};
  return shape;
}
// A random shape of rows and columns; some have more columns than a warp handles.
inline std::vector<int64_t> matrix(Random& random) {
  if (chance(random, 4)) return {between(random, 0, 5), edge(random, 5000)};
  return {edge(random, 70), edge(random, 140)};
}

inline void want_some(Random& random, Trial& t, std::initializer_list<const char*> results) {
  for (const char* each : results) t.want(each, chance(random, 2));
}

// optimizer_trials.cu
void adam(Random& random, Trial& t);
void lion(Random& random, Trial& t);
void linear_update(Random& random, Trial& t);
void rmsprop(Random& random, Trial& t);
void sgd(Random& random, Trial& t);

// loss_trials.cu
void check_step(Random& random, Trial& t);
void cross_entropy(Random& random, Trial& t);
void pointwise(Random& random, Trial& t);

}  // namespace gradring::testing
