// Ops that look at each element, or add elements up, with random shapes, alignments, options and odd values.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

void activation(Random& random, Trial& t) {
  t.give(random, t.knows("dy") ? "dy" : "x", some_shape(random), 3);
  const int64_t activation = between(random, 0, 5);
  t.set("activation", static_cast<double>(activation));
  if (activation == 2 && find_attribute(*t.op, "approximate") >= 0) t.set("approximate", chance(random, 2));
  t.complete(random);
  if (chance(random, 3)) t.spoil(random, t.knows("dy") ? "source" : "x");
}

void elements(Random& random, Trial& t) {
  t.compare = Compare::kBits;
  if (t.knows("finite")) want_some(random, t, {"finite"});
  t.give(random, t.op->operands[0].name, some_shape(random));
  t.complete(random);
  if (chance(random, 3)) t.spoil(random, t.op->operands[0].name);
}

bool is_one_of(Dtype dtype, std::initializer_list<Dtype> all) {
  return std::find(all.begin(), all.end(), dtype) != all.end();
}

void cast(Random& random, Trial& t) {
  t.compare = Compare::kBits;
  const auto from = static_cast<Dtype>(between(random, 0, kDtypes - 1));
  const auto target = static_cast<Dtype>(between(random, 0, kDtypes - 1));
  const bool wide = from != Dtype::kBool && from != Dtype::kUint8 && from != Dtype::kInt8;
  const bool is_signed =
      from != Dtype::kUint16 && from != Dtype::kUint32 && from != Dtype::kUint64 && from != Dtype::kUint8;
  t.give(random, "x", some_shape(random), from, is_signed && from != Dtype::kBool ? -100 : 0,
         from == Dtype::kBool ? 1
         : wide               ? 32000
                              : 120);
  const bool real =
      from == Dtype::kFloat32 || from == Dtype::kFloat64 || from == Dtype::kFloat16 || from == Dtype::kBfloat16;
  for (double& value : t.at("x").values) {
    if (real) value = value * 1.00048828125 / 7;
    // No integer type tells what becomes of a float that it cannot hold.
    if (real && (target == Dtype::kInt8 || target == Dtype::kUint8)) value = std::fmod(value, 120);
    if (real && is_one_of(target, {Dtype::kUint8, Dtype::kUint16, Dtype::kUint32, Dtype::kUint64})) {
      value = std::fabs(value);
    }
    if (from == Dtype::kInt64 || from == Dtype::kUint64) value = value * 1099511627777.0;
    // Up to 2^64, which only uint64 holds.
    const bool single = from == Dtype::kFloat32 || from == Dtype::kFloat64;
    if (single && target == Dtype::kUint64 && chance(random, 3)) value = value * 3.2e15;
  }
  t.set("dtype", static_cast<double>(target));
  t.complete(random);
  const bool holds_odd =
      is_one_of(target, {Dtype::kFloat32, Dtype::kFloat64, Dtype::kFloat16, Dtype::kBfloat16, Dtype::kBool});
  if (real && holds_odd) t.spoil(random, "x");
}

void column_sums(Random& random, Trial& t) {
  auto shape = matrix(random);
  if (chance(random, 3)) shape = {between(random, 250, 900), between(random, 0, 40)};
  t.give(random, "x", shape);
  t.complete(random);
  if (chance(random, 4)) t.spoil(random, "x");
}

void dropout(Random& random, Trial& t) {
  t.compare = Compare::kBits;
  t.give(random, "x", matrix(random));
  const int64_t rows = t.at("x").shape[0];
  const double p[] = {0, 1, 0.1, 0.5};
  t.set("p", p[between(random, 0, 3)]), t.set("layer", 3);
  t.record.seed = random(), t.record.draw = static_cast<uint64_t>(between(random, 0, 99)), t.record.first_sample = 1000;
  const bool in_program = chance(random, 2);
  t.want("draw", in_program);
  if (in_program && rows > 0 && chance(random, 2)) {
    for (int64_t i = 0; i < rows; ++i) t.samples.push_back(between(random, 0, int64_t{1} << 40));
  }
  if (!in_program) {
    t.set("seed", static_cast<double>(between(random, 0, int64_t{1} << 50))), t.set("epoch", 7);
    if (chance(random, 2)) t.give(random, "samples", {rows}, Dtype::kInt64, 0, int64_t{1} << 40);
  }
  t.complete(random);
}

void sum_of_squares(Random& random, Trial& t) {
  t.give(random, "gradient", {chance(random, 3) ? between(random, 8000, 20000) : edge(random, 5000)});
  t.complete(random);
  if (chance(random, 4)) t.spoil(random, "gradient");
}

void largest(Random& random, Trial& t) {
  t.compare = Compare::kBits;
  t.give(random, "x", {chance(random, 3) ? between(random, 8000, 20000) : edge(random, 5000)});
  t.complete(random);
  if (chance(random, 2)) t.spoil(random, "x");
}

constexpr Entry kOps[] = {
    {"accumulate", elements},
    {"activation", activation},
    {"activation_vjp", activation},
    {"add", elements},
    {"cast", cast},
    {"column_sums", column_sums},
    {"copy", elements},
    {"dropout", dropout},
    {"largest", largest},
    {"sum_of_squares", sum_of_squares},
};

}  // namespace

Entries element_ops() { return kOps; }

TEST_CASE(
    "CUDA kernels of element-wise ops and sums agree with their references, with the same bits in every schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
