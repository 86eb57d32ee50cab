// Every op that has a CUDA kernel, with random shapes, alignments, options and odd values.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "cuda/device.h"
#include "ops/cuda_kernels.h"
#include "ops/cuda_tests/trials.h"
#include "ops/register_cuda.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// Fills in the trial of one op at random.
using Make = void (*)(Random& random, Trial& trial);

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

void embedding(Random& random, Trial& t) {
  t.compare = Compare::kBits;
  const int64_t rows = between(random, 0, 20);
  const bool bad = rows == 0 || chance(random, 4);
  std::vector<int64_t> shape{edge(random, 130)};
  if (chance(random, 2)) shape.push_back(between(random, 0, 3));
  t.give(random, "ids", shape, chance(random, 2) ? Dtype::kInt32 : Dtype::kInt64, bad ? -1 : 0, bad ? rows : rows - 1);
  t.give(random, "table", {rows, edge(random, 70)});
  want_some(random, t, {"fault"});
  t.complete(random);
}

void embedding_vjp(Random& random, Trial& t) {
  const bool hot = chance(random, 6);
  const int64_t rows = hot ? 2 : edge(random, 600);
  const bool bad = rows == 0 || chance(random, 4);
  const int64_t count = hot ? between(random, 1200, 3000) : edge(random, 300);
  t.give(random, "ids", {count}, chance(random, 2) ? Dtype::kInt32 : Dtype::kInt64, bad ? -1 : 0,
         bad ? rows : rows - 1);
  t.give(random, "dy", {count, hot ? 3 : edge(random, 70)});
  t.set("rows", static_cast<double>(rows));
  want_some(random, t, {"fault"});
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

void clip(Random& random, Trial& t) {
  const Dtype before = t.dtype;
  t.dtype = Dtype::kFloat64;
  t.give(random, "sum", {1});
  t.make_positive("sum");
  t.dtype = before;
  t.set("limit", 0.5);
  t.record.total_weight = chance(random, 4) ? 0 : 3;
  want_some(random, t, {"weight"});
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

void check_ids(Random& random, Trial& t) {
  const Dtype dtype = chance(random, 2) ? Dtype::kInt32 : Dtype::kInt64;
  t.give(random, "ids", {between(random, 1, 9), between(random, 1, 4)}, dtype, -5, 5);
  const auto count = static_cast<int64_t>(t.at("ids").values.size());
  t.give(random, "fault", {1}, Dtype::kInt64, -1, count - 1);
  t.complete(random);
}

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
  const bool parts = name == "linear" && t.dtype != Dtype::kBfloat16 && chance(random, 4);
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

struct Entry {
  const char* op;
  Make make;
};
constexpr Entry kEntries[] = {
    {"accumulate", elements},
    {"activation", activation},
    {"activation_vjp", activation},
    {"adam", adam},
    {"adam_update", adam},
    {"add", elements},
    {"batch_norm", batch_norm},
    {"batch_norm_inference", batch_norm},
    {"batch_norm_update", batch_norm_update},
    {"batch_norm_vjp", batch_norm},
    {"binary_cross_entropy", pointwise},
    {"bound_gradient", check_gradients},
    {"cast", cast},
    {"check_gradients", check_gradients},
    {"check_ids", check_ids},
    {"check_step", check_step},
    {"clip", clip},
    {"column_sums", column_sums},
    {"copy", elements},
    {"cross_entropy", cross_entropy},
    {"dropout", dropout},
    {"embedding", embedding},
    {"embedding_vjp", embedding_vjp},
    {"huber", pointwise},
    {"largest", largest},
    {"layer_norm", norm},
    {"layer_norm_vjp", norm},
    {"linear", linear},
    {"linear_dw", linear},
    {"linear_dw_adam", linear_update},
    {"linear_dw_sgd", linear_update},
    {"linear_dx", linear},
    {"linear_vjp", linear},
    {"lion", lion},
    {"lion_update", lion},
    {"mae", pointwise},
    {"matmul", matmul},
    {"mse", pointwise},
    {"rms_norm", norm},
    {"rms_norm_vjp", norm},
    {"rmsprop", rmsprop},
    {"rmsprop_update", rmsprop},
    {"sgd", sgd},
    {"sgd_update", sgd},
    {"softmax", softmax},
    {"softmax_vjp", softmax},
    {"sum_of_squares", sum_of_squares},
};

// The dtype of a trial: all that the op's schema allows take turns.
Dtype dtype_of(const Entry& entry, int turn) {
  if (turn % 4 == 3) return Dtype::kFloat64;
  const DtypeSet allowed = find_schema(entry.op)->operands[0].dtypes;
  return turn % 4 == 1 && allowed == kProductDtypes ? Dtype::kBfloat16 : Dtype::kFloat32;
}

}  // namespace

// The ops that have no CUDA kernel, and the reasons.
constexpr const char* kWithout[] = {
    // They call functions outside the program, usually in Python, which compute on the CPU.
    "function", "function_loss", "function_vjp",
    // With these, the ranks of one host meet and add planes in the host's memory.
    "meet", "sum_planes", "sum_planes_in_place", "prove_sums", "meet_squares", "end_update", "clear_plane",
    "begin_part", "keep_losses", "merge_moments",
    // By these, workers on the CPU share parameters in the host's memory.
    "read_shared", "read_shared_rows", "take_shared", "give_shared", "push_sgd", "push_sgd_rows"};

TEST_CASE("every op of the registry has a CUDA kernel, which is tried here, or a reason to have none") {
  register_all_cuda_kernels();
  std::set<std::string> tried, without(std::begin(kWithout), std::end(kWithout));
  for (const Entry& entry : kEntries) tried.insert(entry.op);
  for (const OpSchema* op : all_ops()) {
    INFO(std::string(op->name));
    const bool has_kernel = static_cast<bool>(cuda_kernel(*op)), is_tried = tried.count(op->name) == 1;
    CHECK(has_kernel != (without.count(op->name) == 1));
    CHECK(has_kernel == is_tried);
  }
}

TEST_CASE("the trials give every operand of every op, and every dtype, choice and flag") {
  Random random(20240611);
  for (const Entry& entry : kEntries) {
    std::set<std::string> missing, seen;
    for (int turn = 0; turn < 300; ++turn) {
      Trial t(entry.op, dtype_of(entry, turn));
      entry.make(random, t);
      for (size_t i = 0; i < t.operands.size(); ++i) {
        if (t.operands[i].dtype == kNoDtype) continue;
        seen.insert(t.op->operands[i].name);
        seen.insert(std::string(t.op->operands[i].name) + " " + dtype_name(t.operands[i].dtype));
      }
      for (size_t i = 0; i < t.attributes.size(); ++i) {
        seen.insert(std::string(t.op->attributes[i].name) + "=" + std::to_string(t.attributes[i].integer));
      }
    }
    const OpSchema& op = *find_schema(entry.op);
    for (const Operand& each : op.operands) {
      if (seen.count(each.name) == 0) missing.insert(each.name);
      for (int i = 0; i < kDtypes; ++i) {
        const std::string name = std::string(each.name) + " " + dtype_name(static_cast<Dtype>(i));
        const bool allowed = each.step == StepField::kNone && (each.dtypes & only(static_cast<Dtype>(i))) != 0;
        if (allowed && seen.count(name) == 0) missing.insert(name);
      }
    }
    for (const Attribute& each : op.attributes) {
      if (each.method) continue;  // how the CPU computes
      size_t values = each.type == AttributeType::kFlag ? 2 : each.choices.size();
      for (size_t value = 0; value < values; ++value) {
        const std::string name = std::string(each.name) + "=" + std::to_string(value);
        if (seen.count(name) == 0) missing.insert(name);
      }
    }
    for (const std::string& each : missing)
      FAIL_CHECK(std::string(entry.op), " is never tried with ", std::string(each));
  }
}

TEST_CASE("every CUDA kernel agrees with its reference, with the same bits in every schedule") {
  std::random_device device;
  for (const Entry& entry : kEntries) {
    SUBCASE(entry.op) {
      const uint64_t seed = device();
      INFO("seed ", seed);
      Random random(seed);
      for (int turn = 0; turn < shapes(); ++turn) {
        Trial trial(entry.op, dtype_of(entry, turn));
        entry.make(random, trial);
        check(random, trial, turn);
      }
    }
  }
}

// Not under ThreadSanitizer, which needs seconds for each new process and finds nothing in it: no thread runs beside another.
#if defined(GRADRING_SOFTWARE_DEVICE) && !defined(GRADRING_SOFTWARE_TSAN)
TEST_CASE(
    "every CUDA call of every op fails once: the error names both, and the device stays usable or is said to be lost") {
  Random random(20240607);
  for (const Entry& entry : kEntries) {
    for (int turn = 0; turn < 2; ++turn) {
      Trial trial(entry.op, dtype_of(entry, turn));
      entry.make(random, trial);
      check_failures(trial);
    }
  }
}
#endif
