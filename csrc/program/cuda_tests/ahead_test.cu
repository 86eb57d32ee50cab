// Tests of steps that return before the device is done: their results are those of a chunk, the host waits for none of them, and a
// failure is heard of in time.
#ifdef GRADRING_SOFTWARE_DEVICE
#include "cuda/device.h"
#include "program/cuda/plant.h"
#include "program/cuda_tests/fixture.h"

namespace gradring {

using namespace testing;

namespace {

constexpr int64_t kRows = 32;

const Samples<float>& samples() {
  static const Samples<float> all(640, kIn, kOut);
  return all;
}

// Steps on the batches of an engine, one feed for each as `trainer.step` makes it, or one for all of them.
struct Stepper {
  OnDevice on;
  Samples<float> data;
  void* caller;
  std::vector<double> losses;

  explicit Stepper(const EpochOptions& o = {}, const Samples<float>& of = samples(), void* stream = nullptr)
      : on(o), data(of), caller(stream) {}

  ChunkOptions options() const {
    ChunkOptions options = on.engine->chunk_options();
    options.rates = rates().data(), options.rate_count = 1;
    return options;
  }
  // The samples may change as soon as this returns, so it changes them.
  ChunkResult step(int64_t number) {
    Samples<float> batch = data;
    const auto first = static_cast<size_t>(number % 20 * kRows);
    std::copy_n(data.x.begin() + static_cast<int64_t>(first) * kIn, kRows * kIn, batch.x.begin());
    std::copy_n(data.y.begin() + static_cast<int64_t>(first), kRows, batch.y.begin());
    ArraySource source(fields_of(batch, kRows), {.samples = kRows, .batch_size = kRows});
    Feed feed;
    feed.source = &source;
    const ChunkResult result = on.engine->step(feed, options(), caller);
    std::fill(batch.x.begin(), batch.x.end(), NAN);
    std::fill(batch.y.begin(), batch.y.end(), -1);
    return result;
  }
  // Returns how many steps are known to be done.
  int64_t take() {
    const std::vector<double>& heard = on.engine->losses(static_cast<int64_t>(losses.size()));
    losses.insert(losses.end(), heard.begin(), heard.end());
    return on.engine->first_loss() + static_cast<int64_t>(heard.size());
  }
  void wait_for(int64_t number) {
    on.engine->await(number);
    take();
  }
};

std::vector<double> losses_of_chunks(const EpochOptions& o, int64_t steps, std::vector<float>* params) {
  OnDevice on(o);
  std::vector<double> losses;
  ArraySource source(fields_of(samples(), 640), {.samples = 640, .batch_size = kRows});
  Feed feed;
  feed.source = &source;
  for (int64_t step = 0; step < steps; ++step) {
    ChunkOptions options = on.engine->chunk_options();
    options.rates = rates().data(), options.rate_count = 1, options.most_steps = 1;
    Totals totals;
    REQUIRE(on.engine->chunk(true, feed, options, &totals, nullptr).end == ChunkEnd::kSteps);
    losses.push_back(totals.last_loss);
  }
  *params = on.params();
  return losses;
}

}  // namespace

TEST_CASE("steps that return early have the bits of chunks of one step, in every schedule") {
  for (const int64_t accumulate : {1, 3}) {
    software::restart({});
    const EpochOptions o{.samples = 640, .accumulate = accumulate};
    std::vector<float> params;
    const std::vector<double> losses = losses_of_chunks(o, 20, &params);
    for (const software::Options& options : software::every_schedule(8)) {
      INFO(software::name(options));
      software::restart(options);
      {
        Stepper s(o);
        for (int64_t i = 0; i < 20; ++i) {
          REQUIRE(s.step(i).end == ChunkEnd::kSteps);
          CHECK(s.on.engine->queued_updates() == (i + 1) / accumulate);
          if (i == 7) s.wait_for(5);  // reading one in between changes nothing
        }
        s.on.engine->settle();
        CHECK(s.take() == 20);
        CHECK(s.losses == losses);
        CHECK(s.on.engine->state().updates == 20 / accumulate);
        CHECK(s.on.engine->state().draws == 20);
        CHECK(s.on.engine->state().pending == 20 % accumulate);
        CHECK(s.on.engine->totals().steps == 20);
        CHECK(same_bits(s.on.params(), params));
      }
      CHECK(software::leaks() == "");
    }
  }
}

TEST_CASE("a step waits for nothing, allocates nothing and frees nothing") {
  software::Options lazy;
  lazy.schedule = software::Schedule::kLazy;
  for (const software::Options& schedule : {software::Options{}, lazy}) {
    software::restart(schedule);
    Stepper s;
    const auto calls_of = [&](int64_t steps) {
      std::map<std::string, int> before = software::calls();
      for (int64_t i = 0; i < steps; ++i) CHECK(s.step(i).end == ChunkEnd::kSteps);
      std::map<std::string, int> now = software::calls();
      for (auto& [call, count] : now) count -= before[call];
      return now;
    };
    (void)calls_of(6);  // captures the graphs
    std::map<std::string, int> many = calls_of(40);
    for (const char* call : {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy",
                             "cudaMemset", "cudaMalloc", "cudaMallocAsync", "cudaHostAlloc", "cudaFree", "cudaFreeHost",
                             "cudaGraphInstantiate", "cudaStreamBeginCapture", "cudaEventCreateWithFlags"}) {
      INFO(call);
      CHECK(many[call] == 0);
    }
    CHECK(many["cudaGraphLaunch"] == 40);
    CHECK(many["cudaMemcpyAsync"] == 40);  // the batches; no ledger moves
    CHECK(many["cudaLaunchKernel"] == 0);
    s.wait_for(45);
    CHECK(s.losses.size() == 46);
  }
}

TEST_CASE("at most four steps, or 200 ms of work, wait on the device") {
  for (const auto& [microseconds, most] : {std::pair<int64_t, int64_t>{1000, 4}, {80'000, 2}, {300'000, 1}}) {
    software::Options options;
    options.schedule = software::Schedule::kLazy;
    options.microseconds["begin_kernel"] = microseconds;
    software::restart(options);
    Stepper s;
    int64_t ahead = 0;
    for (int64_t i = 0; i < 12; ++i) {
      CHECK(s.step(i).end == ChunkEnd::kSteps);
      const int64_t waits = i + 1 - s.take();
      if (i == 1) CHECK(waits == 1);  // the first step of a program may take any time
      ahead = std::max(ahead, waits);
    }
    CHECK(ahead == most);
  }
}

namespace {

// Nothing orders this look behind the work of the device, as a program would have to, so ThreadSanitizer must not see it.
[[gnu::noinline, gnu::no_sanitize("thread")]] float peek(const float* param) { return *param; }

// The batches of another source. Whenever the engine fills one, it looks how many steps the device has done, each of which changes a
// parameter. The lazy schedule runs work while the host waits, so none runs beside this.
class Watched final : public BatchSource {
 public:
  Watched(BatchSource* source, const float* param) : source_(*source), param_(param), seen_(peek(param)) {}

  Status next(Batch* batch, Deadline deadline) noexcept override { return source_.next(batch, deadline); }
  void release(const Batch& batch) noexcept override { source_.release(batch); }
  void fill(const Lane& lane, const Batch& batch) noexcept override {
    source_.fill(lane, batch);
    const float now = peek(param_);
    done_ += now != seen_;  // at most one step has been done since the last look
    seen_ = now;
    ++filled_;
    ahead = std::max(ahead, filled_ - done_);
  }

  int64_t ahead = 0;  // the most batches, with the one that is filled, whose steps were not done

 private:
  BatchSource& source_;
  const float* param_;
  float seen_;
  int64_t filled_ = 0, done_ = 0;
};

}  // namespace

TEST_CASE("a chunk keeps as near: at most four steps, or 200 ms of work, wait on the device") {
  for (const auto& [microseconds, most] : {std::pair<int64_t, int64_t>{1000, 4}, {80'000, 2}, {300'000, 1}}) {
    INFO(microseconds);
    software::Options options;
    options.schedule = software::Schedule::kLazy;
    options.microseconds["begin_kernel"] = microseconds;
    software::restart(options);
    OnDevice on({});
    ArraySource source(fields_of(samples(), 640), {.samples = 640, .batch_size = kRows});
    Watched watched(&source, static_cast<const float*>(on.param.data()));
    Feed feed;
    feed.source = &watched;
    ChunkOptions chunk = on.engine->chunk_options();
    chunk.rates = rates().data(), chunk.rate_count = 100, chunk.most_steps = 16;
    Totals totals;
    CHECK(on.engine->chunk(true, feed, chunk, &totals, nullptr).end == ChunkEnd::kSteps);
    CHECK(watched.ahead == most);
  }
}

TEST_CASE("the seconds of steps are those of the device's clock") {
  software::Options options;
  options.microseconds["begin_kernel"] = 5000;
  software::restart(options);
  Stepper s;
  for (int64_t i = 0; i < 10; ++i) CHECK(s.step(i).end == ChunkEnd::kSteps);
  s.on.engine->settle();
  CHECK(s.on.engine->totals().compute_seconds == doctest::Approx(0.05).epsilon(0.05));
}

TEST_CASE("a step that fails is the last one, and is heard of by the next steps") {
  Samples<float> bad = samples();
  bad.y[3 * kRows + 5] = kOut;
  for (const software::Options& options : software::every_schedule(6)) {
    INFO(software::name(options));
    software::restart(options);
    {
      Stepper s({}, bad), until;
      for (int64_t i = 0; i < 3; ++i) (void)until.step(i);
      int64_t queued = 0;
      while (queued < 20 && s.step(queued).fault == Fault::kNone) ++queued;
      CHECK(queued >= 4);
      CHECK(queued <= 7);
      CHECK(s.step(0).fault == Fault::kLabel);  // until the failure is taken
      const std::optional<FailedStep> failed = s.on.engine->failure();
      REQUIRE(failed);
      CHECK(failed->number == 3);
      CHECK(failed->result.row == 5);
      CHECK(failed->result.rows == kRows);
      CHECK(s.take() == 3);
      s.on.engine->forget_failure();
      CHECK(s.on.engine->state().updates == 3);
      CHECK(s.on.engine->queued_updates() == 3);
      until.on.engine->settle();
      CHECK(same_bits(s.on.params(), until.on.params()));
      CHECK(s.step(0).fault == Fault::kNone);  // it goes on
      s.on.engine->settle();
      CHECK(!s.on.engine->failure());
      const std::vector<double> later = s.on.engine->losses(0);
      CHECK(later.size() == 1);
      CHECK(s.on.engine->first_loss() == s.on.engine->queued() - 1);
      CHECK(s.on.engine->state().updates == 4);
    }
    CHECK(software::leaks() == "");
  }
}

TEST_CASE("an engine ends with steps queued") {
  for (const software::Options& options : software::every_schedule(4)) {
    software::restart(options);
    {
      Stepper s;
      for (int64_t i = 0; i < 3; ++i) (void)s.step(i);
    }
    CHECK(software::leaks() == "");
  }
}

namespace {

__global__ void keep(const float* params, float* copy, int n) {
  for (int64_t j = device::thread_in_grid(); j < n; j += device::threads_in_grid()) copy[j] = params[j];
}

// Steps, copies of the parameters on the caller's stream after each of them, and a fault. Returns 0 if all is right.
int ahead_program(Plant plant, const std::vector<float>* expected, std::vector<float>* found) {
  the_plant<Plant> = plant;
  cudaStream_t caller = nullptr;
  OK(cudaStreamCreateWithFlags(&caller, cudaStreamNonBlocking));
  Samples<float> bad = samples();
  bad.y[12 * kRows] = -3;
  {
    Stepper s({}, bad, caller);
    const auto elements = static_cast<int>(s.on.shape.elements());
    cuda::DeviceMemory copies("test", 12 * static_cast<size_t>(elements) * sizeof(float));
    auto* const copy = static_cast<float*>(copies.data());
    for (int64_t i = 0; i < 12; ++i) {
      if (s.step(i).end != ChunkEnd::kSteps) return 2;
      OK(LAUNCH(keep, dim3(1), dim3(32), 0, caller, static_cast<const float*>(s.on.param.data()), copy + i * elements,
                elements));
    }
    s.wait_for(11);
    std::vector<float> all(12 * static_cast<size_t>(elements));
    OK(cudaMemcpyAsync(all.data(), copy, all.size() * sizeof(float), cudaMemcpyDeviceToHost, caller));
    OK(cudaStreamSynchronize(caller));
    if (s.losses.size() != 12) return 3;
    for (const double loss : s.losses) all.push_back(static_cast<float>(loss));
    int64_t more = 12;
    while (more < 18 && s.step(more).fault == Fault::kNone) ++more;
    if (more > 16) return 4;
    if (!s.on.engine->failure()) return 5;
    if (found != nullptr) *found = all;
    if (expected != nullptr && !same_bits(all, *expected)) return 6;
  }
  OK(cudaStreamDestroy(caller));
  return 0;
}

}  // namespace

TEST_CASE("steps that return early are clean in every schedule, and each planted bug is found") {
  software::restart({});
  std::vector<float> expected;
  REQUIRE(ahead_program(Plant::kNone, nullptr, &expected) == 0);
  constexpr std::pair<Plant, const char*> kPlants[] = {
      {Plant::kNone, "no bug"},
      {Plant::kNoEntryWait, "no wait at entry"},
      {Plant::kNoExitWait, "no wait at exit"},
      {Plant::kLossSlotReused, "a loss is overwritten before it is read"},
      {Plant::kFaultHeardTooLate, "a fault is heard of too late"},
      {Plant::kFaultReadTooLate, "the step after a fault begins"},
      {Plant::kSlotReused, "a device slot is reused too early"},
      {Plant::kNoArrivalWait, "a step does not wait for its batch"},
  };
  for (const auto& [plant, name] : kPlants) {
    INFO(std::string(name));
    int found = 0;
    for (const software::Options& options : software::every_schedule(plant == Plant::kNone ? kManySeeds : 20)) {
      const software::Outcome outcome =
          software::run_apart(options, [&] { return ahead_program(plant, &expected, nullptr); });
      INFO(software::name(options), ": ", outcome.said);
      found += outcome.status != 0;
      if (plant == Plant::kNone) CHECK(outcome.status == 0);
      if (plant != Plant::kNone && found > 0) break;
    }
    CHECK((found > 0) == (plant != Plant::kNone));
  }
  the_plant<Plant> = Plant::kNone;
}

}  // namespace gradring
#endif
