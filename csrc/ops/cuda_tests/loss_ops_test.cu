// Trials of the losses, and of the ops that read their totals.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

// The weights of samples, some of them zero and rarely one that cannot be. A mean needs samples.
void loss_options(Random& random, Trial& t, int64_t rows) {
  t.set("scale", 0.25);
  const int64_t reduction = rows > 0 ? between(random, 0, 2) : 0;
  t.set("reduction", static_cast<double>(reduction));
  if (reduction == 0 && chance(random, 2)) t.give(random, "dlosses", {rows});
  if (chance(random, 2)) {
    t.give(random, "sample_weight", {rows});
    for (double& value : t.at("sample_weight").values)
      value = chance(random, 4) ? 0 : t.as_stored(std::fabs(value) + 0.25);
    if (rows > 0 && chance(random, 6)) {
      const double odd[] = {-1, INFINITY, std::nan("")};
      t.at("sample_weight").values[static_cast<size_t>(between(random, 0, rows - 1))] = odd[between(random, 0, 2)];
    }
  }
  t.want("dx", chance(random, 2));
  want_some(random, t, {"losses", "totals"});
  if (t.wanted[static_cast<size_t>(t.place("dx"))]) want_some(random, t, {"column_sums"});
}

void cross_entropy(Random& random, Trial& t) {
  auto shape = cached_matrix(random);
  shape[1] = std::max<int64_t>(shape[1], 1);
  t.give(random, "x", shape, 4);
  const bool bad = chance(random, 5), soft = chance(random, 3);
  if (soft) {  // not normalized, with ties
    t.give(random, "target", shape);
    for (double& value : t.at("target").values) value = static_cast<double>(between(random, 0, 8)) / 8;
    if (bad && !t.at("target").values.empty()) t.at("target").values.back() = chance(random, 2) ? 1.5 : -0.5;
  } else {
    t.give(random, "target", {shape[0]}, chance(random, 2) ? Dtype::kInt32 : Dtype::kInt64, bad ? -1 : 0,
           shape[1] - (bad ? 0 : 1));
  }
  if (chance(random, 3)) {  // ties
    for (double& value : t.at("x").values) value = std::round(value);
  }
  if (chance(random, 3)) t.set("label_smoothing", 0.125);
  if (chance(random, 3)) {
    t.give(random, "class_weight", {shape[1]});
    for (double& value : t.at("class_weight").values)
      value = chance(random, 4) ? 0 : t.as_stored(std::fabs(value) + 0.25);
  }
  loss_options(random, t, shape[0]);
  t.complete(random);
  if (chance(random, 5)) t.spoil(random, "x");
  if (soft) t.tolerance *= 4;  // each value sums terms of both signs over all classes
}

void pointwise(Random& random, Trial& t) {
  auto shape = matrix(random);
  shape[1] = std::max<int64_t>(shape[1], 1);
  if (chance(random, 3)) shape.insert(shape.begin() + 1, between(random, 1, 3));
  if (chance(random, 3)) shape = {edge(random, 400)};
  int64_t columns = 1;
  for (size_t axis = 1; axis < shape.size(); ++axis) columns *= shape[axis];
  t.give(random, "x", shape, 3);
  if (find_attribute(*t.op, "delta") >= 0) t.set("delta", 0.75);
  if (t.knows("pos_weight")) {
    if (columns == 1 && chance(random, 2)) t.give(random, "class_weight", {2}), t.make_positive("class_weight");
    if (chance(random, 3)) t.give(random, "pos_weight", {columns}), t.make_positive("pos_weight");
  }
  loss_options(random, t, shape[0]);
  t.complete(random);
  if (std::string(t.op->name) == "binary_cross_entropy") {
    for (double& value : t.at("target").values)
      value = chance(random, 300) ? 1.5 : static_cast<double>(between(random, 0, 8)) / 8;
    if (chance(random, 4) && !t.at("x").values.empty()) t.at("x").values[0] = chance(random, 2) ? INFINITY : -INFINITY;
  } else if (chance(random, 5)) {
    t.spoil(random, "x");
  }
}

void check_step(Random& random, Trial& t) {
  t.give(random, "totals", {5}, Dtype::kInt64, 0, 0);
  const double losses[] = {12.5, INFINITY, std::nan("")};
  const double loss = losses[between(random, 0, 2)];
  // Two words of totals are doubles. Given holds numbers, so pass the words' bits as integers.
  int64_t bits;
  std::memcpy(&bits, &loss, sizeof bits);
  const double weights[] = {0, 2};
  const double weight = weights[between(random, 0, 1)];
  int64_t weight_bits;
  std::memcpy(&weight_bits, &weight, sizeof weight_bits);
  t.at("totals").values = {static_cast<double>(bits), 7, static_cast<double>(between(random, -1, 1)),
                           static_cast<double>(weight_bits), static_cast<double>(between(random, -1, 1))};
  t.set("rows", 64), t.set("weighted", chance(random, 2)), t.set("columns", chance(random, 2) ? 10 : 0);
  t.record.pending_weight = 32, t.record.check_finite = !chance(random, 4), t.record.need_weight = chance(random, 2);
  t.record.loss_scale = chance(random, 2) ? 1 : 4096;
  want_some(random, t, {"pending", "total_weight"});
  t.complete(random);
}

constexpr Entry kOps[] = {
    {"binary_cross_entropy", pointwise},
    {"check_step", check_step},
    {"cross_entropy", cross_entropy},
    {"huber", pointwise},
    {"mae", pointwise},
    {"mse", pointwise},
};

}  // namespace

Entries loss_ops() { return kOps; }

TEST_CASE("CUDA kernels of losses agree with their references, with the same bits in every schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
