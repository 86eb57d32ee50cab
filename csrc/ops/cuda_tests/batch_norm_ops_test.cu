// Batch norm with random shapes, alignments, options and odd values.
#include <string>
#include <vector>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

void batch_norm(Random& random, Trial& t) {
  const bool vjp = t.knows("dy"), inference = std::string(t.op->name) == "batch_norm_inference";
  std::vector<int64_t> shape = chance(random, 4)
                                   ? std::vector<int64_t>{between(random, 250, 800), between(random, 1, 40)}
                                   : std::vector<int64_t>{edge(random, 70), edge(random, 140)};
  const bool training = !inference && chance(random, 2);
  if (training && shape[0] < 2) shape[0] = 2;
  t.give(random, vjp ? "dy" : "x", shape, 1);
  const std::vector<int64_t> columns{shape[1]};
  for (const char* each : {"weight", "bias"}) {
    if (t.knows(each) && chance(random, 2)) t.give(random, each, columns);
  }
  t.set("eps", 1e-3);
  if (!inference) t.set("training", training);
  if (vjp || inference) {
    if (!training || chance(random, 2)) t.give(random, "mean", columns), t.give(random, "variance", columns);
    for (const char* each : {"dx", "dweight", "dbias"}) {
      if (vjp) t.want(each, chance(random, 2));
    }
  } else {
    if (!training || chance(random, 2)) t.give(random, "running_mean", columns), t.give(random, "running_var", columns);
    if (training) want_some(random, t, {"mean", "variance"});
  }
  t.complete(random);
  for (const char* each : {"variance", "running_var"}) {
    if (t.knows(each) && !t.at(each).values.empty() && t.at(each).dtype == t.dtype) t.make_positive(each);
  }
  t.tolerance *= 10;
}

void batch_norm_update(Random& random, Trial& t) {
  t.give(random, "running_mean", {edge(random, 600)});
  t.set("rows", static_cast<double>(between(random, 0, 5)));
  t.complete(random);
}

constexpr Entry kOps[] = {
    {"batch_norm", batch_norm},
    {"batch_norm_inference", batch_norm},
    {"batch_norm_update", batch_norm_update},
    {"batch_norm_vjp", batch_norm},
};

}  // namespace

Entries batch_norm_ops() { return kOps; }

TEST_CASE("CUDA kernels of batch norm agree with their references, with the same bits in every schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
