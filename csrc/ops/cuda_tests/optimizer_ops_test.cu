// Trials of the optimizers.
#include <cmath>

#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"

namespace gradring::testing {

namespace {

// The scalars of an optimizer's step: of the call, or of the record. A batch may have no weight.
void scalars(Random& random, Trial& t) {
  if (!t.knows("gradient")) return t.set("lr", 0.01), t.set("grad_scale", 0.25);
  t.record.learning_rate = 0.01, t.record.clip = 0.75, t.record.total_weight = chance(random, 5) ? 0 : 3;
  t.rates = {0.01, 0.02, 0.5};
  t.set("rate", static_cast<double>(between(random, 0, 4)));
  want_some(random, t, {"clip", "weight", "bounded"});
}
const char* gradient_of(const Trial& t) { return t.knows("gradient") ? "gradient" : "grad"; }

// The attributes of Adam, of an op of its own or of one into which it is fused.
void adam_attributes(Random& random, Trial& t) {
  t.set("beta1", 0.9), t.set("beta2", 0.999), t.set("eps", 1e-8);
  t.set("weight_decay", chance(random, 2) ? 0.1 : 0), t.set("decoupled", chance(random, 2));
  want_some(random, t, {"vmax"});
  t.record.number = between(random, 1, 1000);
}
void sgd_attributes(Random& random, Trial& t, const char* state) {
  const bool momentum = chance(random, 2);
  t.set("momentum", momentum ? 0.9 : 0), t.set("nesterov", momentum && chance(random, 2));
  t.set("weight_decay", chance(random, 2) ? 0.1 : 0);
  t.want(state, momentum);
}

void adam(Random& random, Trial& t) {
  t.give(random, "param", some_shape(random));
  adam_attributes(random, t);
  scalars(random, t);
  if (!t.knows("gradient")) t.set("step", static_cast<double>(t.record.number));
  t.complete(random);
  t.make_positive("v");
  if (chance(random, 3)) t.spoil(random, gradient_of(t));
  t.tolerance *= 2;
}

void sgd(Random& random, Trial& t) {
  t.give(random, "param", some_shape(random));
  sgd_attributes(random, t, t.knows("gradient") ? "momentum" : "velocity");
  scalars(random, t);
  t.complete(random);
  if (chance(random, 3)) t.spoil(random, gradient_of(t));
}

// Numbers whose products and sums are exact, so that float32 and float64 agree on the sign of the direction.
void lion(Random& random, Trial& t) {
  t.give(random, "param", some_shape(random));
  t.set("beta1", 0.75), t.set("beta2", 0.99), t.set("weight_decay", chance(random, 2) ? 0.1 : 0);
  scalars(random, t);
  if (t.record.total_weight != 0) t.record.total_weight = 2;
  t.complete(random);
  for (const char* each : {gradient_of(t), "m"}) {
    for (double& value : t.at(each).values) value = std::round(value * 16) / 16;
  }
  if (chance(random, 3)) t.spoil(random, gradient_of(t));
}

void rmsprop(Random& random, Trial& t) {
  t.give(random, "param", some_shape(random));
  const bool centered = chance(random, 2), momentum = chance(random, 2);
  t.set("alpha", 0.9), t.set("eps", 1e-6), t.set("weight_decay", chance(random, 2) ? 0.1 : 0);
  t.set("centered", centered), t.set("momentum", momentum ? 0.9 : 0);
  t.want("mean", centered), t.want("velocity", momentum);
  scalars(random, t);
  t.complete(random);
  t.make_positive("v");
  auto& v = t.at("v").values;
  for (size_t i = 0; centered && i < v.size(); ++i) v[i] = t.as_stored(v[i] + std::pow(t.at("mean").values[i], 2));
  if (chance(random, 3)) t.spoil(random, gradient_of(t));
  t.tolerance *= 4;
}

// A product into which the update of its result is fused.
void linear_update(Random& random, Trial& t) {
  const int64_t rows = edge(random, 40), in = edge(random, 70), out = edge(random, 70);
  t.give(random, "x", {rows, in}), t.give(random, "dy", {rows, out}), t.give(random, "param", {in, out});
  const bool adam = t.knows("v");
  adam ? adam_attributes(random, t) : sgd_attributes(random, t, "momentum");
  t.record.learning_rate = 0.01, t.rates = {0.01, 0.02};
  t.set("rate", static_cast<double>(between(random, 0, 2)));
  want_some(random, t, {"bounded"});
  t.complete(random);
  if (adam) t.make_positive("v");
  t.tolerance *= 4, t.stops = false;
}

constexpr Entry kOps[] = {
    {"adam", adam},
    {"adam_update", adam},
    {"linear_dw_adam", linear_update},
    {"linear_dw_sgd", linear_update},
    {"lion", lion},
    {"lion_update", lion},
    {"rmsprop", rmsprop},
    {"rmsprop_update", rmsprop},
    {"sgd", sgd},
    {"sgd_update", sgd},
};

}  // namespace

Entries optimizer_ops() { return kOps; }

TEST_CASE("CUDA kernels of optimizers agree with their references, with the same bits in every schedule") {
  check_entries(kOps);
}

}  // namespace gradring::testing
