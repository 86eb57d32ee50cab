// Ops that compute each row from the whole row, with random shapes, alignments, options and odd values.
#include <algorithm>
#include <cmath>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

void softmax(Random& random, Trial& t) {
  const auto shape = cached_matrix(random);
  t.give(random, t.knows("dy") ? "dy" : "x", shape, 4);
  const bool logarithm = chance(random, 2);
  t.set("logarithm", logarithm);
  t.complete(random);
  if (t.knows("dy") && shape[1] > 0) {
    // Make y as small as probabilities: sums of thousands of large terms that cancel have no exact digits in float32.
    for (double& value : t.at("y").values) {
      value = std::fabs(value) / static_cast<double>(shape[1]);
      if (logarithm) value = std::log(value + 1e-30);
    }
  }
  if (chance(random, 4)) t.spoil(random, t.knows("dy") ? "dy" : "x");
}

void norm(Random& random, Trial& t) {
  auto shape = cached_matrix(random);
  shape[1] = std::max<int64_t>(shape[1], 1);
  const bool vjp = t.knows("dy");
  t.give(random, vjp ? "dy" : "x", shape, 1, chance(random, 3) ? 10 : 0);
  for (const char* each : {"weight", "bias"}) {
    if (t.knows(each) && chance(random, 2)) t.give(random, each, {shape[1]});
  }
  t.set("eps", 1e-3);
  for (const char* each : {"dx", "dweight", "dbias"}) {
    if (vjp && t.knows(each)) t.want(each, chance(random, 2));
  }
  t.complete(random);
  t.tolerance *= 4;
  if (chance(random, 5)) t.spoil(random, "x");
}

constexpr Entry kOps[] = {
    {"layer_norm", norm},   {"layer_norm_vjp", norm}, {"rms_norm", norm},
    {"rms_norm_vjp", norm}, {"softmax", softmax},     {"softmax_vjp", softmax},
};

}  // namespace

Entries row_ops() { return kOps; }

TEST_CASE(
    "CUDA kernels of softmax and of the norms of rows agree with their references, with the same bits in every "
    "schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
