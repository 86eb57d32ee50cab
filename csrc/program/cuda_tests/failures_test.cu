// Makes every CUDA call of three steps fail once, and checks: no crash, no leak, an error that names the call, counts and
// parameters of the last whole step, and an engine that can be destroyed.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <algorithm>

#include "cuda/device.h"
#include "program/cuda_tests/fixture.h"

namespace gradring {

using namespace testing;

namespace {

struct Attempt {
  std::string said;       // the error; empty if there was none
  bool made = false;      // the engine could be made
  bool goes_on = false;   // afterwards it makes one more step, or says that it cannot
  bool allocates = true;  // whether other work can have memory after the failure
};

// With `early`, each step returns before the device is done. With `traced`, each is in the trace.
Attempt train(int64_t steps, bool early, bool traced = false) {
  Attempt attempt;
  std::unique_ptr<OnDevice> on;
  const Samples<float> samples(200, kIn, kOut);
  ArraySource source(fields_of(samples, 200), {.samples = 200, .batch_size = 32, .seed = 1, .shuffle = true});
  Feed feed;
  feed.source = &source;
  Totals totals;
  const auto chunk = [&](int64_t most) {
    ChunkOptions options = on->engine->chunk_options();
    options.rates = rates().data(), options.rate_count = 1000, options.most_steps = most;
    for (int64_t step = 0; early && step < most; ++step) (void)on->engine->step(feed, options, nullptr);
    on->engine->settle();
    if (!early) (void)on->engine->chunk(true, feed, options, &totals, nullptr);
  };
  try {
    on = std::make_unique<OnDevice>(EpochOptions{.samples = 192});
    if (traced) on->engine->trace(true);
    chunk(steps);
  } catch (const Error& error) {
    attempt.said = error.what();
    void* memory = nullptr;
    attempt.allocates = cudaMalloc(&memory, 64) == cudaSuccess && cudaFree(memory) == cudaSuccess;
  }
  attempt.made = on != nullptr;
  if (!on) return attempt;
  try {
    on->engine->settle();  // an error may have come before a step was queued; the steps before it still run
  } catch (const Error& error) {
    attempt.said = error.what();
  }
  const auto updates = static_cast<size_t>(on->engine->state().updates);
  try {
    chunk(1);
    attempt.goes_on = on->engine->state().updates == static_cast<int64_t>(updates) + 1;
  } catch (const Error& error) {
    attempt.goes_on = std::string(error.what()).find("cannot go on") != std::string::npos;
    // Where the first steps succeeded, the fault came in the one that followed them.
    if (attempt.said.empty()) attempt.said = error.what(), attempt.goes_on = true;
  }
  return attempt;
}

// Makes each of the `count` calls fail once, in a training of its own, and returns how often the training hid the error, or went on
// with a race that ThreadSanitizer reports.
int swallowed(const std::string& call, int count) {
  int found = 0;
  for (int number = 1; number <= count; ++number) {
    software::Options options;
    options.faults = {{call, number, cudaErrorNotPermitted}};
    const int status = software::run_apart(options, [&] { return train(3, false).said.empty() ? 6 : 0; }).status;
    found += status == 6 || status == software::kRaceReported;
  }
  return found;
}

}  // namespace

TEST_CASE("an error that is swallowed is found") {
  software::restart({});
  REQUIRE(train(3, false).said == "");
  const int count = software::calls().at("cudaStreamWaitEvent");
  CHECK(swallowed("cudaStreamWaitEvent", count) == 0);
  the_plant<Plant> = Plant::kErrorSwallowed;
  CHECK(swallowed("cudaStreamWaitEvent", count) > 0);
  the_plant<Plant> = Plant::kNone;
}

namespace {

void check_failures(bool early, bool traced = false) {
  software::restart({});
  REQUIRE(train(3, early, traced).said == "");
  REQUIRE(software::leaks() == "");
  const std::map<std::string, int> calls = software::calls();
  int tried = 0;
  for (const auto& [call, count] : calls) {
    if (call == "run") continue;  // see below
    // Only destructors or the test itself make these calls.
    if (call == "cudaMemcpy") continue;
    if (call == "cudaThreadExchangeStreamCaptureMode") continue;  // which matters only while a stream captures
    if (call == "cudaFree" || call == "cudaFreeHost" || call.find("Destroy") != std::string::npos) continue;
    const int step = kFewFailures ? std::max(count / 2, 1) : 1;
    for (int number = 1; number <= count; number += step) {
      software::Options options;
      options.faults = {{call, number, cudaErrorNotPermitted}};
      const software::Outcome outcome = software::run_apart(options, [&] {
        const Attempt attempt = train(3, early, traced);
        std::printf("%s\n", attempt.said.c_str());
        if (attempt.said.empty()) return 6;  // the training went on as if nothing had failed
        if (attempt.said[0] != '[') return 3;
        // A launch may be the library's own.
        const bool named =
            attempt.said.find(call) != std::string::npos || attempt.said.find("cublasLt") != std::string::npos;
        if (!named) return 4;
        if (!attempt.allocates) return 7;
        return attempt.made && !attempt.goes_on ? 5 : 0;
      });
      INFO(call, " ", number, " of ", count, ": ", outcome.said);
      CHECK(outcome.status == 0);
      ++tried;
    }
  }
  CHECK(tried > 40);
}

}  // namespace

TEST_CASE("every CUDA call of three steps fails once") { check_failures(false); }

TEST_CASE("every CUDA call of three steps that return early fails once") { check_failures(true); }

TEST_CASE("every CUDA call of three steps in the trace fails once") { check_failures(false, true); }

// The first operations belong to the test's own preparations.
TEST_CASE("operations on the device of three steps fail, and a later call says so") {
  software::restart({});
  REQUIRE(train(0, false).said == "");
  const int before = software::calls().at("run");
  software::restart({});
  REQUIRE(train(3, false).said == "");
  const int count = software::calls().at("run");
  CHECK(count - before > 20);
  for (int number = before + 1; number < count; number += kFewFailures ? std::max(count / 3, 1) : 1) {
    software::Options options;
    options.faults = {{"run", number, cudaErrorIllegalAddress}};
    const software::Outcome outcome = software::run_apart(options, [&] {
      const std::string said = train(3, false).said;
      std::printf("%s\n", said.c_str());
      return said.empty() ? 6 : said[0] != '[' ? 3 : said.find("IllegalAddress") == std::string::npos ? 4 : 0;
    });
    INFO("operation ", number, " of ", count, ": ", outcome.said);
    CHECK(outcome.status == 0);
  }
}

}  // namespace gradring
#endif
