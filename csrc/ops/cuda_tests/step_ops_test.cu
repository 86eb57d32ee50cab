// Ops that decide about a step of training, with random numbers, some of them odd.
#include <cmath>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

void clip(Random& random, Trial& t) {
  const Dtype before = t.dtype;
  t.dtype = Dtype::kFloat64;
  t.give(random, "sum", {1});
  t.make_positive("sum");
  t.dtype = before;
  t.set("limit", 0.5);
  t.record.total_weight = chance(random, 4) ? 0 : 3;
  t.record.loss_scale = chance(random, 2) ? 1 : 4096;
  want_some(random, t, {"weight", "scale"});
  t.complete(random);
  if (chance(random, 3)) t.at("sum").values[0] = chance(random, 2) ? INFINITY : std::nan("");
}

void check_gradients(Random& random, Trial& t) {
  const bool whole = t.knows("largest");
  for (const char* each : {"largest", "x", "dy"}) {
    if (!t.knows(each) || (!whole && chance(random, 3))) continue;
    t.give(random, each, {edge(random, 600)});
    t.make_positive(each);
    if (chance(random, 3)) t.spoil(random, each);
    for (double& value : t.at(each).values) value = std::fabs(value);
    if (!whole && chance(random, 3) && !t.at(each).values.empty())
      t.at(each).values[0] = t.dtype == Dtype::kFloat32 ? 1e30 : 1e300;
  }
  if (!whole) t.set("rows", 64), t.set("dy_bound", 2);
  t.record.check_finite = !chance(random, 4);
  t.complete(random);
  t.compare = Compare::kBits;  // float64 has another largest number, so compare in the same dtype
}

void scale_gradient(Random& random, Trial& t) {
  t.give(random, "x", {edge(random, 5000)});
  t.record.loss_scale = 4096;
  t.record.loss_sum = chance(random, 3) ? (chance(random, 2) ? INFINITY : std::nan("")) : 12.5;
  t.complete(random);
}

constexpr Entry kOps[] = {
    {"bound_gradient", check_gradients},
    {"check_gradients", check_gradients},
    {"clip", clip},
    {"scale_gradient", scale_gradient},
};

}  // namespace

Entries step_ops() { return kOps; }

TEST_CASE(
    "CUDA kernels of the ops that decide about a step agree with their references, with the same bits in every "
    "schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
