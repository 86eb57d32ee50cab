// Tests that a program trains on the device as it does on the CPU, in every schedule of the software device.
#ifdef GRADRING_SOFTWARE_DEVICE
#include "cuda/device.h"
#include "program/cuda_tests/fixture.h"

namespace gradring {

using namespace testing;

namespace {

const Samples<float>& samples() {
  static const Samples<float> all(1000, kIn, kOut);
  return all;
}

void check_equal(const Epoch& device, const Epoch& cpu) {
  CHECK(device.result.end == cpu.result.end);
  CHECK(device.result.fault == cpu.result.fault);
  CHECK(device.state.updates == cpu.state.updates);
  CHECK(device.state.draws == cpu.state.draws);
  CHECK(device.state.pending == cpu.state.pending);
  CHECK(device.state.pending_weight == cpu.state.pending_weight);
  CHECK(device.state.loss_scale == cpu.state.loss_scale);
  CHECK(device.state.good == cpu.state.good);
  CHECK(device.state.sums.samples == cpu.state.sums.samples);
  CHECK(device.state.sums.correct == cpu.state.sums.correct);
  CHECK(device.state.sums.loss_weight == cpu.state.sums.loss_weight);
  CHECK(device.state.sums.loss_sum == doctest::Approx(cpu.state.sums.loss_sum).epsilon(1e-6));
  CHECK(device.state.before_group.samples == cpu.state.before_group.samples);
  CHECK(device.totals.steps == cpu.totals.steps);
  CHECK(device.totals.samples == cpu.totals.samples);
  CHECK(device.totals.updates == cpu.totals.updates);
  CHECK(device.totals.correct == cpu.totals.correct);
  CHECK(device.totals.last_loss == doctest::Approx(cpu.totals.last_loss).epsilon(1e-5));
  CHECK(distance(device.params, cpu.params) < 1e-5);
}

}  // namespace

TEST_CASE("a perceptron trains on the device as on the CPU, with the same bits in every schedule") {
  const EpochOptions options{.epochs = 8};  // 56 steps, of two batch sizes
  const Epoch cpu = on_cpu(samples(), options);
  const std::vector<float> bits = same_in_every_schedule<float>([&] {
    const Epoch device = on_device(samples(), options);
    check_equal(device, cpu);
    return device.params;
  });
  CHECK(!same_bits(bits, Memory<float>(perceptron(32)).copy(perceptron(32))));
}

TEST_CASE("graphs have the bits of plain launches, and chunks those of a whole epoch") {
  software::restart({});
  const Epoch whole = on_device(samples(), {.epochs = 3});
  const Epoch plain = on_device(samples(), {.epochs = 3, .graphs = false});
  const Epoch cut = on_device(samples(), {.most_steps = 2, .epochs = 3});
  CHECK(same_bits(whole.params, plain.params));
  CHECK(same_bits(whole.params, cut.params));
  CHECK(whole.totals.loss_sum == plain.totals.loss_sum);
  CHECK(whole.state.sums.loss_sum == cut.state.sums.loss_sum);
  CHECK(software::leaks() == "");
}

TEST_CASE("gradients of several batches wait for one update, and the rest is flushed") {
  // 7 batches of an epoch, in groups of 3: one waits at the end of the first epoch, and goes on in the second.
  for (const bool flush : {false, true}) {
    const EpochOptions options{.accumulate = 3, .epochs = 2, .flush = flush};
    const Epoch cpu = on_cpu(samples(), options);
    CHECK((cpu.state.pending == 0) == flush);
    (void)same_in_every_schedule<float>([&] {
      const Epoch device = on_device(samples(), options);
      check_equal(device, cpu);
      return device.params;
    });
  }
}

TEST_CASE("a label out of range ends the chunk, and changes nothing from its batch on") {
  for (const int64_t accumulate : {1, 2}) {
    Samples<float> bad = samples();
    bad.y[17] = kOut;
    const EpochOptions options{.accumulate = accumulate};
    const Epoch cpu = on_cpu(bad, options);
    REQUIRE(cpu.result.fault == Fault::kLabel);
    (void)same_in_every_schedule<float>([&] {
      const Epoch device = on_device(bad, options);
      check_equal(device, cpu);
      CHECK(device.result.sample == cpu.result.sample);
      CHECK(device.result.row == cpu.result.row);
      CHECK(device.result.position == cpu.result.position);
      CHECK(device.result.rows == cpu.result.rows);
      return device.params;
    });
  }
}

TEST_CASE("an overflow skips the update and halves the loss's scale, and two thousand updates double it") {
  Samples<float> bad = samples();
  bad.x[17 * kIn + 3] = INFINITY;
  const EpochOptions halved{.epochs = 3, .scale = 4096, .good = 9}, doubled{.epochs = 2, .scale = 8, .good = 1990};
  const Epoch skipping = on_cpu(bad, halved), growing = on_cpu(samples(), doubled);
  CHECK(skipping.result.fault == Fault::kNone);
  CHECK(skipping.totals.steps == 21);  // the batch with the bad sample is one of seven in each epoch
  CHECK(skipping.state.updates == 18);
  CHECK(skipping.state.loss_scale == 512);
  CHECK(growing.state.updates == 14);
  CHECK(growing.state.loss_scale == 16);
  CHECK(growing.state.good == 4);
  CHECK(distance(growing.params, on_cpu(samples(), {.epochs = 2}).params) < 1e-5);  // the update undoes the scale
  (void)same_in_every_schedule<float>([&] {
    const Epoch device = on_device(bad, halved);
    check_equal(device, skipping);
    for (const float v : device.params) REQUIRE(std::isfinite(v));
    check_equal(on_device(samples(), doubled), growing);
    return device.params;
  });
}

TEST_CASE("an overflow at the least scale is a fault, which changes nothing") {
  Samples<float> bad = samples();
  bad.x[17 * kIn + 3] = NAN;
  const EpochOptions options{.epochs = 3, .scale = 2};  // the first epoch skips a batch, and the second one ends at it
  const Epoch cpu = on_cpu(bad, options);
  CHECK(cpu.result.fault == Fault::kNonFinite);
  CHECK(cpu.state.loss_scale == 1);
  CHECK(cpu.state.updates >= 6);
  CHECK(cpu.state.updates < 13);
  (void)same_in_every_schedule<float>([&] {
    const Epoch device = on_device(bad, options);
    check_equal(device, cpu);
    return device.params;
  });
}

TEST_CASE("after a fault the same engine trains on") {
  software::restart({});
  Samples<float> bad = samples();
  bad.x[5 * kIn] = NAN;
  {
    OnDevice on({});
    const auto epoch = [&](const Samples<float>& of) {
      Epoch result;
      run_epochs(of, {}, on.engine->chunk_options(), &result, [&](Feed& feed, const ChunkOptions& options) {
        return on.engine->chunk(true, feed, options, &result.totals, nullptr);
      });
      return result.result;
    };
    CHECK(epoch(bad).fault == Fault::kNonFinite);
    CHECK(epoch(samples()).end == ChunkEnd::kEpoch);
    for (const float v : on.params()) CHECK(std::isfinite(v));
  }
  CHECK(software::leaks() == "");
}

TEST_CASE("between two reports nothing waits, allocates or frees, however many steps there are") {
  software::Options lazy;
  lazy.schedule = software::Schedule::kLazy;
  for (const software::Options& schedule : {software::Options{}, lazy}) {
    software::restart(schedule);
    OnDevice on({.samples = 960});
    Epoch epoch;
    const auto calls_of = [&](int64_t steps) {
      ArraySource source(fields_of(samples(), 960), {.samples = 960, .batch_size = 32, .shuffle = true});
      Feed feed;
      feed.source = &source;
      ChunkOptions options = on.engine->chunk_options();
      options.rates = rates().data(), options.rate_count = 100, options.most_steps = steps;
      std::map<std::string, int> before = software::calls();
      CHECK(on.engine->chunk(true, feed, options, &epoch.totals, nullptr).end == ChunkEnd::kSteps);
      std::map<std::string, int> now = software::calls();
      for (auto& [call, count] : now) count -= before[call];
      return now;
    };
    (void)calls_of(4);  // captures the graphs
    std::map<std::string, int> few = calls_of(5), many = calls_of(25);
    for (const char* call : {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy",
                             "cudaMemset", "cudaMalloc", "cudaMallocAsync", "cudaHostAlloc", "cudaFree", "cudaFreeHost",
                             "cudaGraphInstantiate", "cudaStreamBeginCapture", "cudaEventCreateWithFlags"}) {
      INFO(call);
      CHECK(few[call] == 0);
      CHECK(many[call] == 0);
    }
    CHECK(many["cudaGraphLaunch"] == 25);
    CHECK(many["cudaMemcpyAsync"] == 25 + 2);  // one per batch; the ledger goes there and comes back once per chunk
    CHECK(many["cudaLaunchKernel"] == 0);
  }
}

TEST_CASE("memory that lacks is a MemoryError with the bytes wanted and free, and the engine stays as it was") {
  software::Options little;
  little.memory = size_t{1} << 20;
  software::restart(little);
  {
    OnDevice on({});
    const Perceptron large{20000, kIn, kHidden, kOut};
    std::string said;
    try {
      on.engine->add(Mode::kTrain, large.rows, large.program());
    } catch (const Error& error) {
      CHECK(error.code() == Code::kOutOfMemory);
      said = error.what();
    }
    INFO(said);
    CHECK(said.find("bytes are wanted") != std::string::npos);
    CHECK(said.find("are free") != std::string::npos);
    Epoch epoch;
    run_epochs(samples(), {}, on.engine->chunk_options(), &epoch, [&](Feed& feed, const ChunkOptions& options) {
      return on.engine->chunk(true, feed, options, &epoch.totals, nullptr);
    });
    CHECK(epoch.result.end == ChunkEnd::kEpoch);
    CHECK(same_bits(on.params(), on_device(samples(), {}).params));
  }
  CHECK(software::leaks() == "");
}

TEST_CASE("algorithms are chosen by timing before the first step, which changes nothing else") {
  const Epoch cpu = on_cpu(samples(), {.accumulate = 2, .epochs = 2});
  for (const software::Options& schedule : software::every_schedule(2)) {
    software::Options options = schedule;
    options.microseconds["sums_in_halves<T>"] = 9;
    software::restart(options);
    INFO(software::name(options));
    const Epoch heuristic = on_device(samples(), {.accumulate = 2, .epochs = 2});
    const Epoch tuned = on_device(samples(), {.accumulate = 2, .epochs = 2, .tune = true});
    const Epoch launched = on_device(samples(), {.accumulate = 2, .epochs = 2, .graphs = false, .tune = true});
    check_equal(tuned, cpu);
    CHECK(!same_bits(tuned.params, heuristic.params));
    CHECK(same_bits(tuned.params, launched.params));
    CHECK(software::leaks() == "");
  }
  software::restart({});
}

TEST_CASE("a stream that captures a graph is refused") {
  software::restart({});
  OnDevice on({});
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  ArraySource source(fields_of(samples(), 960), {.samples = 960, .batch_size = 32});
  Feed feed;
  feed.source = &source;
  ChunkOptions options = on.engine->chunk_options();
  options.rates = rates().data(), options.rate_count = 100;
  Totals totals;
  CHECK_THROWS_WITH_AS(on.engine->chunk(true, feed, options, &totals, stream), doctest::Contains("capturing a graph"),
                       Error);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

}  // namespace gradring
#endif
