// Updates on one stream after another, and after failures: what comes later sees all that was queued before.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <thread>

#include "cuda/device.h"
#include "program/cuda_tests/updates_fixture.h"
#include "runtime/status.h"

namespace gradring {

using namespace testing;

TEST_CASE("another stream sees the update of the stream before") {
  (void)same_in_every_schedule<float>([&] {
    Training training;
    const cuda::Stream other = cuda::make_stream("test");
    for (int64_t i = 0; i < 6; ++i) training.step(i, 0.1, i % 2 ? other.get() : training.stream);
    (void)training.report();
    return training.params();
  });
}

TEST_CASE("threads whose streams have one handle see the updates of each other") {
  (void)same_in_every_schedule<float>([&] {
    Training training;
    training.step(0, 0.1, cudaStreamPerThread);
    cudaError_t code = cudaErrorUnknown;
    std::thread([&] {
      training.step(1, 0.3, cudaStreamPerThread);
      code = cudaStreamSynchronize(cudaStreamPerThread);  // in a lazy schedule, nothing else runs before
    }).join();
    CHECK(code == cudaSuccess);
    return training.params();
  });
}

TEST_CASE("another stream waits for what an update had queued before it failed") {
  for (const bool marked : {true, false}) {  // whether an event can be recorded after the failure
    std::vector<float> first;
    for (software::Options options : software::every_schedule(4)) {
      INFO(software::name(options));
      software::restart({});
      const int records = (Training(), software::calls()["cudaEventRecord"]);
      options.faults = {{"cudaLaunchKernel", 4, cudaErrorNotPermitted}};  // the second group's
      if (!marked) options.faults.push_back({"cudaEventRecord", records + 2, cudaErrorNotPermitted});
      software::restart(options);
      {
        Training training;
        const cuda::Stream other = cuda::make_stream("test");
        CHECK_THROWS_AS(training.step(0), Error);
        CHECK(training.updates->updated() == 2);
        training.step(1, 0.3, other.get());
        const std::vector<float> params = training.params(other.get());
        if (first.empty()) first = params;
        CHECK(params == first);
        CHECK(software::calls()["cudaDeviceSynchronize"] == (marked ? 0 : 1));
      }
      CHECK(software::leaks() == "");
    }
  }
}

namespace {

// All that an object does, on two streams.
void use(Training& t, void* other) {
  t.updates->loss(t.sum_memory.data(), Dtype::kFloat32, 0, t.stream);
  t.updates->add(t.sums, t.gradients, 2.0, true, t.stream);
  t.updates->update(t.gradients, {0.1, 0.2}, {1, 0, 1.0, 0}, other);
  UpdateLedger found;
  t.updates->queue_report(t.stream);
  (void)t.updates->take_report(true, &found);
  t.updates->clear_fault(other);
}

}  // namespace

TEST_CASE("every CUDA call of updates fails once: the error names it, nothing leaks, and the next update works") {
  software::restart({});
  std::map<std::string, int> before, after;
  {
    Training training(1.0);
    const cuda::Stream other = cuda::make_stream("test");
    use(training, other.get());
    before = training.calls_before, after = software::calls();
  }
  const std::vector<software::Options> schedules = software::every_schedule(4);
  size_t tried = 0;
  for (const auto& [call, count] : after) {
    // The failure of an operation on the device is reported by the next call, and an error that is read is none.
    if (call == "run" || call == "cudaGetLastError" || call == "cudaStreamCreateWithPriority") continue;
    if (call == "cudaThreadExchangeStreamCaptureMode") continue;  // which matters only while a stream captures
    for (int number = before[call] + 1; number <= count; ++number) {
      software::Options options = schedules[tried++ % schedules.size()];
      options.faults = {{call, number, cudaErrorNotPermitted}};
      INFO(call, " ", number, " of ", count, ", ", software::name(options));
      software::restart(options);
      {
        const cuda::Stream other = cuda::make_stream("test");
        std::unique_ptr<Training> training;
        std::string said;
        try {
          training = std::make_unique<Training>(1.0);
          use(*training, other.get());
        } catch (const Error& error) {
          said = error.what();
        }
        CHECK(said.rfind("[", 0) == 0);
        CHECK(said.find(call) != std::string::npos);
        CHECK(cudaGetLastError() == cudaSuccess);
        if (!training) training = std::make_unique<Training>(1.0);
        MUST(cudaDeviceSynchronize());  // the update may have been queued on the other stream
        const std::vector<float> params = training->params();
        training->step(1, 0.1, other.get());
        CHECK(training->params(other.get()) != params);
      }
      CHECK(software::leaks() == "");
    }
  }
  CHECK(tried > 50);
}

}  // namespace gradring
#endif
