// Updates of many arrays by one launch: the bits of the eager ops, the calls that an update makes, and faults that stay.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "ops/cuda_run.h"
#include "program/cuda_tests/updates_fixture.h"

namespace gradring {

using namespace testing;

namespace {

struct Rule {
  const char* op;
  Numbers values;
  std::vector<std::string> optional;
};

const std::vector<Rule>& rules() {
  static const std::vector<Rule> all = {
      {"sgd_update", {{"weight_decay", 0.01}}, {}},
      {"sgd_update", {{"momentum", 0.9}}, {"velocity"}},
      {"sgd_update", {{"momentum", 0.9}, {"nesterov", 1}}, {"velocity"}},
      {"adam_update", {}, {}},
      {"adam_update", {{"decoupled", 1}, {"weight_decay", 0.1}}, {"vmax"}},
      {"lion_update", {{"weight_decay", 0.1}}, {}},
      {"rmsprop_update", {}, {}},
      {"rmsprop_update", {{"centered", 1}, {"momentum", 0.5}}, {"mean", "velocity"}},
  };
  return all;
}

#ifdef GRADRING_SOFTWARE_TSAN  // which sees the same orders in smaller arrays, and is slow
constexpr int64_t kSizes[] = {1, 4100, 7};
#else
constexpr int64_t kSizes[] = {1, 4096, 7, 10001, 333};
#endif

// One update of arrays of all sizes by one launch; with `apart`, by the eager op, one after the other.
template <class T>
std::vector<T> updated(const Rule& rule, bool apart, int64_t* launches) {
  register_all_cuda_kernels();
  Numbers values = rule.values;
  values["lr"] = 0.03, values["step"] = 3, values["grad_scale"] = 0.5;
  std::vector<std::unique_ptr<Update<T>>> all;
  for (const int64_t n : kSizes) {
    all.push_back(std::make_unique<Update<T>>(rule.op, n, static_cast<unsigned>(n), values, rule.optional));
  }
  cudaStream_t stream = nullptr;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const CudaQueue queue{stream, 4, nullptr, nullptr};
  std::unique_ptr<DeviceUpdates> updates;
  if (apart) {
    for (const auto& each : all) run_cuda_call(prepare_cuda_call(each->call, 0), each->call, queue);
  } else {
    UpdateGroup group{all[0]->call, 0, {}};
    std::vector<const void*> gradients;
    for (const auto& each : all) group.spans.push_back(each->span()), gradients.push_back(group.spans.back().grad);
    updates = std::make_unique<DeviceUpdates>(std::vector<UpdateGroup>{group}, UpdateOptions{}, stream);
    const int before = software::calls()["cudaLaunchKernel"];
    updates->update(gradients, {0.03}, {3, 0, 2.0, 0}, stream);
    *launches = software::calls()["cudaLaunchKernel"] - before;
  }
  MUST(cudaStreamSynchronize(stream));
  std::vector<T> result;
  for (const auto& each : all) {
    const std::vector<T> content = each->content();
    result.insert(result.end(), content.begin(), content.end());
  }
  updates.reset();
  MUST(cudaStreamDestroy(stream));
  return result;
}

template <class T>
void compare_with_eager_ops() {
  for (const Rule& rule : rules()) {
    INFO(rule.op);
    int64_t launches = 0;
    const auto run = [&](bool apart) {
      return same_in_every_schedule<T>([&] { return updated<T>(rule, apart, &launches); });
    };
    const std::vector<T> expected = run(true), found = run(false);
    REQUIRE(expected.size() == found.size());
    CHECK(std::memcmp(expected.data(), found.data(), found.size() * sizeof(T)) == 0);
    CHECK(launches == 3);  // squares, the decision, and one update of five arrays
  }
}

}  // namespace

TEST_CASE("one launch updates many float32 arrays with the bits of the eager ops") { compare_with_eager_ops<float>(); }

TEST_CASE("one launch updates many float64 arrays with the bits of the eager ops") { compare_with_eager_ops<double>(); }

TEST_CASE("an update launches one kernel per group, and nothing waits, allocates or frees") {
  software::Options lazy;
  lazy.schedule = software::Schedule::kLazy;
  for (const software::Options& schedule : {software::Options{}, lazy}) {
    software::restart(schedule);
    {
      Training training(1.0);
      std::map<std::string, int> before = software::calls();
      for (int64_t i = 0; i < 20; ++i) training.step(i);
      std::map<std::string, int> now = software::calls();
      for (auto& [call, count] : now) count -= before[call];
      CHECK(now["cudaLaunchKernel"] == 20 * (2 + 2));  // squares, the decision, and two groups
      CHECK(now["cudaMemcpyAsync"] == 20);
      for (const char* call :
           {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "cudaMemset",
            "cudaMalloc", "cudaMallocAsync", "cudaHostAlloc", "cudaFree", "cudaFreeHost", "cudaEventCreateWithFlags"}) {
        INFO(call);
        CHECK(now[call] == 0);
      }
    }
    CHECK(software::leaks() == "");
  }
}

TEST_CASE("a gradient that is not finite stops its update and all later ones, until the fault is cleared") {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    (void)same_in_every_schedule<float>([&] {
      Training training;
      training.step(0);
      const std::vector<float> before = training.params();
      training.set(3, kMore * 3 + 11, bad);
      training.step(1);
      training.set(3, kMore * 3 + 11, 0.5f);
      training.step(2);
      CHECK(training.params() == before);
      const UpdateLedger found = training.report();
      CHECK(found.record.fault == Fault::kGradient);
      CHECK(found.fault_entry == 1);
      CHECK(found.fault_span == 3);
      training.updates->clear_fault(training.stream);
      training.step(1);
      CHECK(training.report().record.fault == Fault::kNone);
      CHECK(training.params() != before);
      return training.params();
    });
  }
}

TEST_CASE("without a check, gradients that are not finite are used") {
  software::restart({});
  Training training(-1, false);
  training.set(0, 1, NAN);
  training.step(0);
  CHECK(std::isnan(training.params()[1]));
  CHECK(training.report().record.fault == Fault::kNone);
}

TEST_CASE("a loss stays on the device until a report, and one that is not finite stops what follows") {
  (void)same_in_every_schedule<float>([&] {
    Training training;
    const double losses[] = {0.25, NAN, 0.75};
    const cuda::DeviceMemory memory = to_device(losses, sizeof losses);
    const auto loss = [&](int64_t entry, int64_t which) {
      training.updates->loss(static_cast<const double*>(memory.data()) + which, Dtype::kFloat64, entry,
                             training.stream);
    };
    loss(0, 0);
    training.step(0);
    const std::vector<float> before = training.params();
    loss(1, 1);
    training.step(1);
    loss(2, 2);
    training.step(2);
    const UpdateLedger found = training.report();
    CHECK(found.record.fault == Fault::kNonFinite);
    CHECK(found.fault_entry == 1);
    CHECK(found.losses[0] == 0.25);
    CHECK(std::isnan(found.losses[1]));
    CHECK(training.params() == before);
    return training.params();
  });
}

TEST_CASE("the norm of all gradients clips those of every group") {
  software::restart({});
  Training whole, clipped(0.5), same(1e9);
  double squares = 0;
  for (const auto& each : whole.all) {
    const std::vector<float> content = each->content();
    for (int64_t i = each->shape[0]; i < 2 * each->shape[0]; ++i) {
      squares += std::pow(static_cast<double>(content[static_cast<size_t>(i)]), 2);
    }
  }
  const std::vector<float> before = whole.params();
  whole.step(0), clipped.step(0), same.step(0);
  const std::vector<float> a = whole.params(), b = clipped.params(), c = same.params();
  CHECK(a == c);
  const double factor = 0.5 / (std::sqrt(squares) + 1e-6);
  CHECK(factor < 0.1);
  for (size_t i = 0; i < a.size(); ++i) {
    const double wanted = (static_cast<double>(a[i]) - before[i]) * factor,
                 found = static_cast<double>(b[i]) - before[i];
    REQUIRE(found == doctest::Approx(wanted).epsilon(1e-3));
  }
  CHECK(clipped.report().record.gradient_norm == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
}

}  // namespace gradring
#endif
