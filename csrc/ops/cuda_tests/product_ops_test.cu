// Matrix products with random shapes, layouts, alignments, options and odd values.
#include <string>
#include <vector>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

// Memory may hold a transpose (Given::turned); the flags transpose once more.
void matmul(Random& random, Trial& t) {
  const int64_t m = edge(random, 40), n = edge(random, 40), k = edge(random, 70);
  const bool trans_a = chance(random, 2), trans_b = chance(random, 2);
  t.give(random, "a", trans_a ? std::vector<int64_t>{k, m} : std::vector<int64_t>{m, k});
  t.give(random, "b", trans_b ? std::vector<int64_t>{n, k} : std::vector<int64_t>{k, n});
  t.set("trans_a", trans_a), t.set("trans_b", trans_b);
  t.stops = false;
  t.complete(random);
}

void linear(Random& random, Trial& t) {
  const int64_t rows = edge(random, 40), in = edge(random, 70), out = edge(random, 70);
  const std::string name = t.op->name;
  std::vector<int64_t> lead{rows};
  if (chance(random, 3) && name != "linear_dw") lead.push_back(2);
  const auto with = [&](int64_t columns) {
    std::vector<int64_t> shape = lead;
    shape.push_back(columns);
    return shape;
  };
  // Memory that only a method of the CPU uses. That method accepts no other activation than relu.
  const bool parts = name == "linear" && !is_narrow(t.dtype) && chance(random, 4);
  const auto activation = between(random, 0, parts ? 1 : 5);
  if (name != "linear_dw") t.set("activation", static_cast<double>(activation));
  if (t.knows("x")) t.give(random, "x", with(in));
  if (t.knows("w")) t.give(random, "w", {in, out}, 0.3);
  if (t.knows("dy")) t.give(random, "dy", with(out));
  if (name == "linear") {
    if (chance(random, 2)) t.give(random, "b", {out});
    t.want("parts", parts), t.want("pre", !parts && chance(random, 2));
  } else if (name == "linear_vjp") {
    if (activation != 0) t.give(random, "y_or_pre", with(out), 0.5);
    want_some(random, t, {"dx", "dw", "db"});
  } else if (name == "linear_dx") {
    if (activation != 0) t.give(random, "source", with(in), 0.5);
    want_some(random, t, {"column_sums"});
  }
  t.complete(random);
  t.tolerance *= 2, t.stops = false;
}

constexpr Entry kOps[] = {
    {"linear", linear}, {"linear_dw", linear}, {"linear_dx", linear}, {"linear_vjp", linear}, {"matmul", matmul},
};

}  // namespace

Entries product_ops() { return kOps; }

TEST_CASE("CUDA kernels of matrix products agree with their references, with the same bits in every schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
