#include "program/cpu/executor.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "program/testing.h"

namespace gradring {

using testing::Memory;
using testing::Perceptron;
using testing::Samples;

namespace {

template <class T>
StepRecord run_steps(const Perceptron& shape, Memory<T>* memory, const Samples<T>& samples, int lanes, int steps,
                     double rate = 0.1) {
  Team team(lanes);
  Executor executor(shape.program(), memory->arenas, team);
  const Batch batch = samples.batch(shape.rows);
  executor.bind(batch);
  StepRecord given, result;
  given.learning_rate = rate;
  for (int step = 0; step < steps; ++step) {
    team.run(lanes, [&](const Lane& lane) noexcept {
      const StepRecord& step_record = executor.run(lane, given, nullptr);
      if (lane.index == 0) result = step_record;
    });
  }
  return result;
}

}  // namespace

TEST_CASE("gradients are those of finite differences, for odd shapes") {
  const Perceptron shapes[] = {{1, 1, 1, 2, Dtype::kFloat64},
                               {3, 5, 7, 4, Dtype::kFloat64},
                               {33, 17, 19, 3, Dtype::kFloat64},
                               {70, 9, 33, 11, Dtype::kFloat64},
                               {2, 40, 3, 1, Dtype::kFloat64}};
  for (const Perceptron& shape : shapes) {
    Memory<double> memory(shape);
    const Samples<double> samples(shape.rows, shape.in, shape.out);
    std::vector<double> w = memory.copy(shape);
    const StepRecord step = run_steps(shape, &memory, samples, 2, 1, 0.0);
    CHECK(step.fault == Fault::kNone);
    CHECK(step.loss_sum / step.loss_weight == doctest::Approx(testing::loss_of(shape, w, samples)).epsilon(1e-12));
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const double kept = w[static_cast<size_t>(i)], h = 1e-6;
      w[static_cast<size_t>(i)] = kept + h;
      const double above = testing::loss_of(shape, w, samples);
      w[static_cast<size_t>(i)] = kept - h;
      const double below = testing::loss_of(shape, w, samples);
      w[static_cast<size_t>(i)] = kept;
      CHECK(std::abs(memory.grads()[i] - (above - below) / (2 * h)) < 1e-7);
    }
  }
}

TEST_CASE("any number of lanes gives the same bits") {
  for (const Perceptron& shape : {Perceptron{64, 100, 130, 10}, Perceptron{33, 65, 17, 3}, Perceptron{1, 3, 2, 2}}) {
    std::vector<float> first;
    for (const int lanes : {1, 2, 3, 5}) {
      Memory<float> memory(shape);
      run_steps(shape, &memory, Samples<float>(shape.rows, shape.in, shape.out), lanes, 20);
      const std::vector<float> got = memory.copy(shape);
      if (first.empty()) first = got;
      CHECK(std::memcmp(got.data(), first.data(), got.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("training lowers the loss") {
  const Perceptron shape{32, 20, 16, 4};
  Memory<float> memory(shape);
  const Samples<float> samples(shape.rows, shape.in, shape.out);
  const StepRecord before = run_steps(shape, &memory, samples, 2, 1, 0.0);
  const StepRecord after = run_steps(shape, &memory, samples, 2, 200);
  CHECK(after.loss_sum < 0.1 * before.loss_sum);
  CHECK(after.correct == 32);
}

TEST_CASE("a bad label or a loss that is not finite leaves parameters alone") {
  const Perceptron shape{9, 4, 5, 3};
  for (const int lanes : {1, 2, 3}) {
    Memory<float> memory(shape);
    Samples<float> samples(shape.rows, shape.in, shape.out);
    const std::vector<float> before = memory.copy(shape);
    for (const int64_t label : {int64_t{3}, int64_t{-1}, INT64_MAX, INT64_MIN}) {
      samples.y[7] = label;
      const StepRecord step = run_steps(shape, &memory, samples, lanes, 1);
      CHECK(step.fault == Fault::kLabel);
      CHECK(step.fault_row == 7);
      CHECK(memory.copy(shape) == before);
    }
    samples.y[7] = 0;
    samples.x[2] = NAN;
    CHECK(run_steps(shape, &memory, samples, lanes, 1).fault == Fault::kNonFinite);
    CHECK(memory.copy(shape) == before);
  }
}

namespace {

// Computes y = relu(x w + b), with each sum in two parts.
template <class T>
std::vector<T> run_in_parts(int64_t m, int64_t n, int64_t k, int lanes) {
  constexpr Dtype kReal = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  const auto random = [](int64_t count, unsigned seed) {
    std::vector<T> v(static_cast<size_t>(count));
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    for (T& e : v) e = static_cast<T>(normal(generator));
    return v;
  };
  const std::vector<T> x = random(m * k, 1), weights = random((k + 1) * n, 2);
  const int64_t size = static_cast<int64_t>(sizeof(T));
  AlignedArena param(weights.size() * sizeof(T)), temp(static_cast<size_t>(3 * m * n * size));
  std::memcpy(param.data(), weights.data(), weights.size() * sizeof(T));
  Arenas arenas;
  testing::set_arena(&arenas, BufferKind::kParam, param);
  testing::set_arena(&arenas, BufferKind::kTemp, temp);
  testing::ProgramMaker make;
  const testing::View input = make.view(BufferKind::kInput, kReal, {m, k}, 0);
  const testing::View weight = make.view(BufferKind::kParam, kReal, {k, n}, 0);
  const testing::View bias = make.view(BufferKind::kParam, kReal, {n}, k * n * size);
  const testing::View out = make.view(BufferKind::kTemp, kReal, {m, n}, 0);
  const testing::View parts = make.view(BufferKind::kTemp, kReal, {2, m, n}, m * n * size);
  make.emit("linear", {{"x", input}, {"w", weight}, {"b", bias}, {"y", out}, {"parts", parts}},
            {{"activation", integer_value(1)}});
  Team team(lanes);
  Executor executor(make.program, arenas, team);
  Batch batch;
  batch.fields[0] = x.data();
  batch.rows = m;
  executor.bind(batch);
  team.run(lanes, [&](const Lane& lane) noexcept { executor.run(lane, StepRecord{}, nullptr); });
  const T* y = reinterpret_cast<const T*>(temp.data());
  for (int64_t i = 0; i < m; i += 7) {
    for (int64_t j = 0; j < n; j += 5) {
      double sum = static_cast<double>(weights[static_cast<size_t>(k * n + j)]);
      for (int64_t p = 0; p < k; ++p) {
        sum += static_cast<double>(x[static_cast<size_t>(i * k + p)]) *
               static_cast<double>(weights[static_cast<size_t>(p * n + j)]);
      }
      const double tolerance = 4 * std::numeric_limits<T>::epsilon() * static_cast<double>(k);
      REQUIRE(std::abs(static_cast<double>(y[i * n + j]) - std::max(sum, 0.0)) < tolerance);
    }
  }
  return std::vector<T>(y, y + m * n);
}

template <class T>
void check_in_parts(int64_t m, int64_t n, int64_t k) {
  const std::vector<T> one = run_in_parts<T>(m, n, k, 1);
  for (const int lanes : {2, 3, 5}) CHECK(run_in_parts<T>(m, n, k, lanes) == one);
}

}  // namespace

TEST_CASE("a product in parts is right and has the same bits on any number of lanes") {
  check_in_parts<float>(64, 128, 784);
  check_in_parts<float>(17, 33, 129);
  check_in_parts<float>(64, 65, 1024);  // the largest k that a kernel sums in one part
  check_in_parts<float>(64, 65, 1025);
  check_in_parts<float>(64, 65, 3001);  // each part is several blocks of the kernel long
  check_in_parts<double>(64, 65, 1024);
  check_in_parts<double>(64, 65, 1600);
}

}  // namespace gradring
