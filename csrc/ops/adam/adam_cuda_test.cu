#include <cmath>
#include <limits>
#include <random>

#include "cuda/device.h"
#include "cuda/software/tests/device_array.h"
#include "ops/adam/adam_cuda.h"
#include "ops/adam/adam_ref.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
struct Case {
  int64_t n;
  size_t offsets[4];
  bool decoupled;
  double decay;
  int64_t step;
  int32_t fault;
};

template <class T>
void check(std::mt19937_64& random, const Case<T>& c, double odd_value) {
  std::normal_distribution<double> normal;
  const auto size = static_cast<size_t>(c.n);
  std::vector<T> param(size), grad(size), m(size), v(size);
  for (size_t i = 0; i < size; ++i) {
    param[i] = static_cast<T>(normal(random)), grad[i] = static_cast<T>(normal(random));
    m[i] = static_cast<T>(0.1 * normal(random)), v[i] = static_cast<T>(std::abs(0.1 * normal(random)));
  }
  if (size > 0) grad[size / 2] = static_cast<T>(odd_value);
  AdamCudaStep step;
  step.lr = 0.01, step.grad_scale = 0.3, step.fault = c.fault;
  step.step_size = step.lr / (1 - std::pow(0.9, static_cast<double>(c.step)));
  step.root = 1 / std::sqrt(1 - std::pow(0.999, static_cast<double>(c.step)));
  const std::vector<T> got = same_in_every_schedule<T>([&] {
    const DeviceArray<T> p(param, c.offsets[0]), g(grad, c.offsets[1]), first(m, c.offsets[2]), second(v, c.offsets[3]);
    const DeviceArray<AdamCudaStep> scalars({step}, 0);
    AdamCudaArguments<T> arguments;
    arguments.n = c.n, arguments.param = p.data(), arguments.grad = g.data(), arguments.m = first.data();
    arguments.v = second.data(), arguments.weight_decay = c.decay, arguments.decoupled = c.decoupled;
    arguments.step = scalars.data();
    REQUIRE(adam_cuda<T>(arguments, {nullptr, 2}) == 0);
    std::vector<T> all = p.read();
    for (const auto* each : {&first, &second}) {
      const std::vector<T> part = each->read();
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  });
  AdamArguments<T> old{c.n, param.data(), grad.data(), m.data(), v.data(), c.step};
  old.lr = step.lr, old.decoupled = c.decoupled, old.weight_decay = c.decay, old.grad_scale = step.grad_scale;
  const double tolerance = 16 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (size_t i = 0; i < size; ++i) {
    double expected[3] = {param[i], m[i], v[i]};
    if (c.fault == 0) reference::adam<T>(old, static_cast<int64_t>(i), &expected[0], &expected[1], &expected[2]);
    for (size_t part = 0; part < 3; ++part) {
      const double value = got[part * size + i], want = expected[part];
      INFO("n ", c.n, " element ", i, " part ", part, ": ", value, " for ", want);
      if (std::isnan(want)) {
        CHECK(std::isnan(value));
      } else if (std::isinf(static_cast<T>(want))) {
        CHECK(value == static_cast<double>(static_cast<T>(want)));
      } else {
        CHECK(std::abs(value - want) <= tolerance * (1 + std::abs(want)));
      }
    }
  }
}

}  // namespace

TEST_CASE("adam on a device matches the reference at every size, offset and schedule") {
  std::mt19937_64 random(std::random_device{}());
  for (int turn = 0; turn < 60; ++turn) {
    const int64_t sizes[] = {0, 1, 3, 4, 5, 7, 8, 31, 1023, 1024, 1025, 2100};
    const size_t same = random() % 4;
    const bool odd = random() % 2 == 0;
    const auto offset = [&] { return odd ? random() % 4 : same; };
    const Case<float> c{sizes[random() % 12], {offset(), offset(), offset(), offset()},  random() % 2 == 0,
                        random() % 2 * 0.1,   static_cast<int64_t>(1 + random() % 1000), random() % 8 == 0 ? 1 : 0};
    check<float>(random, c, turn % 5 == 0 ? NAN : turn % 5 == 1 ? INFINITY : 1);
    check<double>(random,
                  {c.n,
                   {c.offsets[0] % 2, c.offsets[1] % 2, c.offsets[2] % 2, c.offsets[3] % 2},
                   c.decoupled,
                   c.decay,
                   c.step,
                   c.fault},
                  1e30);
  }
}

TEST_CASE("a launch that fails says so and changes nothing") {
  software::Options options;
  options.faults = {{"cudaLaunchKernel", 1, 719}};
  const software::Outcome outcome = software::run_apart(options, [] {
    AdamCudaStep step;
    float one = 1;
    AdamCudaArguments<float> arguments;
    arguments.n = 1, arguments.param = &one, arguments.grad = &one, arguments.m = &one, arguments.v = &one;
    arguments.step = &step;
    return adam_cuda<float>(arguments, {nullptr, 1}) == 719 && one == 1 ? 0 : 1;
  });
  CHECK(outcome.status == 0);
}
