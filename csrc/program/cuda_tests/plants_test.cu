// Plants each bug of plant.h into the engine, and finds it: in one of the schedules the results are wrong, the software device
// ends the process, or ThreadSanitizer reports a race. The engine without a bug is clean in all of them.
#ifdef GRADRING_SOFTWARE_DEVICE
#include "cuda/device.h"
#include "program/cuda/plant.h"
#include "program/cuda_tests/fixture.h"

namespace gradring {

using namespace testing;

namespace {

// The caller's own work on the parameters, before and after steps.
__global__ void shrink(float* params, int n) {
  const int64_t i = device::thread_in_grid();
  for (int64_t j = i; j < n; j += device::threads_in_grid()) params[j] *= 0.99f;
}

struct Expected {
  std::vector<float> params;
  int64_t steps = 0, updates = 0;
};

// Trains after the caller has shrunk the parameters; the second epoch has a bad label; then a program comes for which the temps
// move.
int program(Plant plant, const Expected* expected, Expected* found) {
  the_plant<Plant> = plant;
  const Samples<float> good(320, kIn, kOut);
  Samples<float> bad = good;
  bad.y[200] = kOut;
  OnDevice on({.samples = 320});
  Totals totals;
  cudaStream_t caller = nullptr;
  OK(cudaStreamCreateWithFlags(&caller, cudaStreamNonBlocking));
  const auto elements = static_cast<int>(on.shape.elements());
  float* const params = static_cast<float*>(on.param.data());
  // One graph of many kernels, so that most of them still wait when the engine queues its first step.
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t work = nullptr;
  OK(cudaStreamBeginCapture(caller, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < 150; ++i) OK(LAUNCH(shrink, dim3(1), dim3(32), 0, caller, params, elements));
  OK(cudaStreamEndCapture(caller, &graph));
  OK(cudaGraphInstantiate(&work, graph, 0));
  OK(cudaGraphDestroy(graph));
  const auto epoch = [&](const Samples<float>& of, int64_t batch, uint64_t number) {
    ArraySource source(fields_of(of, 320),
                       {.samples = 320, .batch_size = batch, .seed = 4, .epoch = number, .shuffle = true});
    Feed feed;
    feed.source = &source;
    ChunkOptions options = on.engine->chunk_options();
    options.rates = rates().data(), options.rate_count = 1000;
    return on.engine->chunk(true, feed, options, &totals, caller);
  };
  OK(cudaGraphLaunch(work, caller));
  if (epoch(good, 32, 0).end != ChunkEnd::kEpoch) return 2;
  const ChunkResult failed = epoch(bad, 32, 1);
  if (failed.fault != Fault::kLabel || failed.sample != 200) return 3;
  OK(cudaGraphLaunch(work, caller));
  Program wide = perceptron(20).program();
  for (Arena& arena : wide.arenas)
    if (arena.kind == BufferKind::kTemp) arena.bytes *= 16;
  on.engine->add(Mode::kTrain, 20, wide);
  if (epoch(good, 20, 2).end != ChunkEnd::kEpoch) return 4;
  if (epoch(good, 32, 3).end != ChunkEnd::kEpoch) return 5;
  OK(cudaStreamSynchronize(caller));
  const Expected now{on.params(), totals.steps, on.engine->state().updates};
  OK(cudaGraphExecDestroy(work));
  OK(cudaStreamDestroy(caller));
  if (found != nullptr) *found = now;
  if (expected == nullptr) return 0;
  const bool right =
      same_bits(now.params, expected->params) && now.steps == expected->steps && now.updates == expected->updates;
  return right ? 0 : 6;
}

// The test program's own process must not be one that ThreadSanitizer would have to follow through a fork with threads.
Expected expectation() {
  software::restart({});
  Expected expected;
  REQUIRE(program(Plant::kNone, nullptr, &expected) == 0);
  return expected;
}

software::Outcome try_it(Plant plant, const Expected& expected, const software::Options& options) {
  return software::run_apart(options, [&] { return program(plant, &expected, nullptr); });
}

}  // namespace

TEST_CASE("the engine is clean in eager, lazy and many random schedules") {
  const Expected expected = expectation();
  for (const software::Options& options : software::every_schedule(kManySeeds)) {
    const software::Outcome outcome = try_it(Plant::kNone, expected, options);
    INFO(software::name(options), ": ", outcome.said);
    CHECK(outcome.status == 0);
  }
}

TEST_CASE("each planted bug is found") {
  const Expected expected = expectation();
  constexpr std::pair<Plant, const char*> kPlants[] = {
      {Plant::kNoEntryWait, "no wait at entry"},
      {Plant::kRefillBeforeCopy, "a slot is refilled before the end of its copy"},
      {Plant::kSlotReused, "a device slot is reused too early"},
      {Plant::kNoArrivalWait, "a step does not wait for its batch"},
      {Plant::kFaultReadTooLate, "a fault is read too late"},
      {Plant::kUpdateIgnoresFault, "an update ignores the fault"},
      {Plant::kCountsIgnoreFault, "the counts ignore the fault"},
      {Plant::kGraphOfFreedMemory, "a graph is kept although its temps have moved"},
      {Plant::kRehearsalActs, "the run before a capture changes parameters"},
      {Plant::kReportReadTooEarly, "a report is read too early"},
  };
  for (const auto& [plant, name] : kPlants) {
    INFO(std::string(name));
    int found = 0;
    for (const software::Options& options : software::every_schedule(20)) {
      found += try_it(plant, expected, options).status != 0;
      if (found > 0) break;
    }
    CHECK(found > 0);
  }
}

}  // namespace gradring
#endif
