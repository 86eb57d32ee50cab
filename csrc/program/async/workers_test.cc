#include "program/async/workers.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "loader/array_source.h"
#include "ops/shared_update/shared_update.h"
#include "program/testing.h"

namespace gradring {

using testing::Memory;
using testing::Perceptron;
using testing::ProgramMaker;
using testing::Samples;
using testing::View;

namespace {

constexpr double kMomentum = 0.9;

// The perceptron's program with plain SGD, or with momentum.
Program serial(const Perceptron& p, double momentum) {
  Program program = p.program();
  Instruction& sgd = program.instructions.back();
  sgd.attributes[static_cast<size_t>(find_attribute(*sgd.op, "momentum"))] = real_value(momentum);
  return program;
}

// The same for a worker, as python/gradring/graph/asynchronous.py makes it.
Program of_worker(const Perceptron& p, double momentum, Push way, std::shared_ptr<SharedView> view) {
  ProgramMaker make{serial(p, momentum)};
  const Instruction sgd = make.program.instructions.back();
  make.program.instructions.pop_back();
  make.program.resources = {std::move(view)};
  const View all = make.view(BufferKind::kParam, p.dtype, {p.elements()}, 0);
  const View gradients = make.view(BufferKind::kGrad, p.dtype, {p.elements()}, 0);
  const AttributeValue zero = integer_value(0);
  make.emit("read_shared", {{"param", all}}, {{"shared", zero}, {"begin", zero}});
  auto& code = make.program.instructions;
  std::rotate(code.begin(), code.end() - 1, code.end());
  if (way == Push::kLocked) {
    make.emit("take_shared", {{"param", all}}, {{"shared", zero}, {"begin", zero}});
    code.push_back(sgd);
    make.emit("give_shared", {{"param", all}}, {{"shared", zero}, {"begin", zero}});
  } else {
    make.emit("push_sgd", {{"param", all}, {"gradient", gradients}, {"lr", {}}, {"finite", {}}},
              {{"shared", zero}, {"begin", zero}, {"way", integer_value(static_cast<int>(way))}});
  }
  return make.program;
}

std::vector<ArrayField> fields_of(const Samples<float>& s, int64_t in) {
  const auto samples = static_cast<int64_t>(s.y.size());
  const auto column = [&](Dtype dtype, std::vector<int64_t> shape, const void* data, int64_t stride) {
    ArrayLayout layout{static_cast<const std::byte*>(data), {stride}, false};
    if (!shape.empty()) layout.strides.push_back(static_cast<int64_t>(size_of(dtype)));
    return std::make_shared<MemoryColumn>(FieldSpec{"", dtype, std::move(shape)}, samples, std::move(layout), nullptr);
  };
  return {{column(Dtype::kFloat32, {in}, s.x.data(), in * 4), Dtype::kFloat32},
          {column(Dtype::kInt64, {}, s.y.data(), 8), Dtype::kInt64}};
}

std::vector<Arenas::Memory> memories(Memory<float>& m) {
  const auto of = [](BufferKind kind, AlignedArena& arena) {
    const char* const name = kBufferKindNames[static_cast<int>(kind)];
    return Arenas::Memory{name, kind, arena.data(), static_cast<int64_t>(arena.size()), nullptr};
  };
  return {of(BufferKind::kParam, m.param), of(BufferKind::kGrad, m.grad), of(BufferKind::kState, m.state)};
}

constexpr int64_t kIn = 12, kHidden = 9, kClasses = 4, kSamples = 500, kRows = 32;

struct Run {
  ChunkResult result;
  Totals totals;
  TrainState state;
  int64_t failed = -1;
  std::vector<float> parameters;
  Workers::Staleness staleness;
};

ChunkOptions options_with(const std::vector<double>& rates) {
  ChunkOptions options;
  options.rates = rates.data();
  options.rate_count = static_cast<int64_t>(rates.size());
  return options;
}

// Rates that differ from update to update, so that a batch with the number of another one shows.
std::vector<double> some_rates() {
  std::vector<double> rates;
  for (int i = 0; i < 1000; ++i) rates.push_back(0.05 / (1 + 0.01 * i));
  return rates;
}

Run train(const Samples<float>& samples, int workers, double momentum, Push way, int64_t bound = Workers::kNoBound,
          int lanes = 1) {
  static const std::vector<double> rates = some_rates();
  const Perceptron shape{kRows, kIn, kHidden, kClasses};
  Memory<float> memory(shape);
  Workers made(memories(memory), {lanes, 1, 0, true}, workers, bound);
  for (int w = 0; w < workers; ++w) {
    for (const int64_t rows : {kRows, kSamples % kRows}) {
      const Perceptron p{rows, kIn, kHidden, kClasses};
      made.add(Mode::kTrain, rows, w, of_worker(p, momentum, way, made.view(w)));
    }
  }
  ArraySource source(fields_of(samples, kIn), {.samples = kSamples, .batch_size = kRows, .seed = 3, .shuffle = true});
  Feed feed{&source, {}, false};
  Run run;
  run.result = made.chunk(feed, options_with(rates), &run.state, &run.totals, &run.failed);
  run.parameters = memory.copy(shape);
  run.staleness = made.staleness();
  return run;
}

Run train_serially(const Samples<float>& samples, double momentum) {
  static const std::vector<double> rates = some_rates();
  const Perceptron shape{kRows, kIn, kHidden, kClasses};
  Memory<float> memory(shape);
  Engine engine(memory.arenas, {1, 1, 0, true});
  for (const int64_t rows : {kRows, kSamples % kRows})
    engine.add(Mode::kTrain, rows, serial({rows, kIn, kHidden, kClasses}, momentum));
  ArraySource source(fields_of(samples, kIn), {.samples = kSamples, .batch_size = kRows, .seed = 3, .shuffle = true});
  Feed feed{&source, {}, false};
  Run run;
  run.result = engine.chunk(true, feed, options_with(rates), &run.totals);
  run.state = engine.state();
  run.parameters = memory.copy(shape);
  return run;
}

void check_equal(const Run& got, const Run& want) {
  CHECK(got.result.end == ChunkEnd::kEpoch);
  CHECK(std::memcmp(got.parameters.data(), want.parameters.data(), want.parameters.size() * sizeof(float)) == 0);
  CHECK(got.totals.loss_sum == want.totals.loss_sum);
  CHECK(got.totals.last_loss == want.totals.last_loss);
  CHECK(got.totals.steps == want.totals.steps);
  CHECK(got.state.updates == want.state.updates);
  CHECK(got.state.draws == want.state.draws);
  CHECK(got.state.sums.loss_sum == want.state.sums.loss_sum);
  CHECK(got.state.sums.correct == want.state.sums.correct);
}

}  // namespace

TEST_CASE("one worker does what a serial run does, bit for bit") {
  const Samples<float> samples(kSamples, kIn, kClasses);
  const Run plain = train_serially(samples, 0), heavy = train_serially(samples, kMomentum);
  CHECK(plain.parameters != heavy.parameters);
  for (const int lanes : {1, 2}) {
    for (const Push way : {Push::kLocked, Push::kAtomic, Push::kHogwild})
      check_equal(train(samples, 1, 0, way, Workers::kNoBound, lanes), plain);
    check_equal(train(samples, 1, kMomentum, Push::kLocked, Workers::kNoBound, lanes), heavy);
  }
}

TEST_CASE("with a bound of 0 updates several workers take turns, and do what a serial run does") {
  const Samples<float> samples(kSamples, kIn, kClasses);
  const Run want = train_serially(samples, kMomentum);
  for (const int workers : {2, 3}) {
    const Run got = train(samples, workers, kMomentum, Push::kLocked, 0);
    CHECK(std::memcmp(got.parameters.data(), want.parameters.data(), want.parameters.size() * sizeof(float)) == 0);
    CHECK(got.staleness.most == 0);
    CHECK(got.totals.loss_sum == doctest::Approx(want.totals.loss_sum));
  }
}

TEST_CASE("no update is staler than the bound, and every batch is trained on once") {
  const Samples<float> samples(kSamples, kIn, kClasses);
  for (const int64_t bound : {int64_t{1}, int64_t{2}, int64_t{5}, Workers::kNoBound}) {
    for (const Push way : {Push::kLocked, Push::kAtomic, Push::kHogwild}) {
      const Run run = train(samples, 4, 0, way, bound);
      CHECK(run.result.end == ChunkEnd::kEpoch);
      CHECK(run.totals.samples == kSamples);
      CHECK(run.totals.updates == (kSamples + kRows - 1) / kRows);
      CHECK(run.state.draws == static_cast<uint64_t>(run.totals.updates));
      if (bound != Workers::kNoBound) CHECK(run.staleness.most <= static_cast<uint64_t>(bound));
      uint64_t counted = 0;
      for (const uint64_t updates : run.staleness.updates) counted += updates;
      CHECK(counted == static_cast<uint64_t>(run.totals.updates));
      for (const float value : run.parameters) REQUIRE(std::isfinite(value));
    }
  }
}

TEST_CASE("a label that is out of range ends the run, and only its batch is lost") {
  Samples<float> samples(kSamples, kIn, kClasses);
  samples.y[77] = kClasses;
  for (const int workers : {1, 3}) {
    const Run run = train(samples, workers, 0, Push::kAtomic);
    CHECK(run.result.end == ChunkEnd::kError);
    CHECK(run.result.fault == Fault::kLabel);
    CHECK(run.result.sample == 77);
    CHECK(run.failed >= 0);
    CHECK(run.totals.updates >= run.failed);
    if (workers == 1) CHECK(run.totals.updates == run.failed);
    for (const float value : run.parameters) REQUIRE(std::isfinite(value));
  }
}

TEST_CASE("limits end a run between two batches, and the next run goes on") {
  static const std::vector<double> rates(1000, 0.05);
  const Samples<float> samples(kSamples, kIn, kClasses);
  const Perceptron shape{kRows, kIn, kHidden, kClasses};
  Memory<float> memory(shape);
  Workers workers(memories(memory), {1, 1, 0, true}, 2, Workers::kNoBound);
  for (int w = 0; w < 2; ++w) workers.add(Mode::kTrain, kRows, w, of_worker(shape, 0, Push::kHogwild, workers.view(w)));
  ArraySource source(fields_of(samples, kIn), {.samples = kSamples, .batch_size = kRows, .seed = 3, .shuffle = true});
  Feed feed{&source, {}, false};
  TrainState state;
  int64_t failed = -1;
  const auto chunk = [&](const ChunkOptions& options, Totals* totals) {
    return workers.chunk(feed, options, &state, totals, &failed);
  };
  Totals totals;
  ChunkOptions options = options_with(rates);
  options.most_steps = 5;
  CHECK(chunk(options, &totals).end == ChunkEnd::kSteps);
  CHECK(totals.updates == 5);
  options.most_steps = -1, options.rate_count = 3;
  CHECK(chunk(options, &(totals = {})).end == ChunkEnd::kRates);
  CHECK(totals.updates == 3);
  options.rate_count = 1000, options.deadline = Clock::now();
  CHECK(chunk(options, &(totals = {})).end == ChunkEnd::kTime);
  CHECK(totals.updates == 1);
  options.deadline = kNoDeadline;
  const ChunkResult result = chunk(options, &(totals = {}));
  CHECK(result.end == ChunkEnd::kProgram);  // there is no program for the last batch
  CHECK(result.rows == kSamples % kRows);
  CHECK(state.updates == kSamples / kRows);
  CHECK(failed == -1);
}

TEST_CASE("programs that reach beyond the parameters are refused, and arenas without parameters") {
  const Perceptron shape{kRows, kIn, kHidden, kClasses};
  Memory<float> memory(shape);
  Workers workers(memories(memory), {1, 1, 0, true}, 1, Workers::kNoBound);
  Program program = of_worker(shape, 0, Push::kAtomic, workers.view(0));
  Instruction& push = program.instructions.back();
  for (const int64_t begin : {int64_t{1}, std::numeric_limits<int64_t>::max()}) {
    push.attributes[static_cast<size_t>(find_attribute(*push.op, "begin"))] = integer_value(begin);
    CHECK_THROWS_AS(workers.add(Mode::kTrain, kRows, 0, program), Error);
  }
  CHECK_THROWS_AS(workers.add(Mode::kTrain, kRows, 1, serial(shape, 0)), Error);
  CHECK_THROWS_AS(Workers({}, {1, 1, 0, true}, 1, Workers::kNoBound), Error);
  for (const int64_t bound : {int64_t{-2}, std::numeric_limits<int64_t>::min()})
    CHECK_THROWS_AS(Workers(memories(memory), {1, 1, 0, true}, 1, bound), Error);
}

TEST_CASE("every engine refuses a program that reaches beyond the parameters of its view") {
  const Perceptron shape{kRows, kIn, kHidden, kClasses};
  for (const Push way : {Push::kLocked, Push::kAtomic}) {
    Memory<float> memory(shape);
    Workers workers(memories(memory), {1, 1, 0, true}, 1, Workers::kNoBound);
    Engine engine(memory.arenas, {1, 1, 0, true});
    const Program good = of_worker(shape, 0, way, workers.view(0));
    engine.add(Mode::kTrain, kRows, good);
    for (size_t i = 0; i < good.instructions.size(); ++i) {
      const int begin = find_attribute(*good.instructions[i].op, "begin");
      if (begin < 0) continue;
      for (const int64_t first : {int64_t{1000}, std::numeric_limits<int64_t>::max()}) {
        Program program = good;
        program.instructions[i].attributes[static_cast<size_t>(begin)] = integer_value(first);
        CHECK_THROWS_AS(engine.add(Mode::kTrain, kRows, program), Error);
      }
    }
  }
}

TEST_CASE("a program whose fields or places are no numbers of it is refused before they are used") {
  const Perceptron shape{kRows, kIn, kHidden, kClasses};
  Memory<float> memory(shape);
  Workers workers(memories(memory), {1, 1, 0, true}, 1, Workers::kNoBound);
  const Program good = of_worker(shape, 0, Push::kAtomic, workers.view(0));
  for (const int64_t offset : {int64_t{-1}, int64_t{-1000}}) {
    Program program = good;
    for (Buffer& buffer : program.buffers)
      if (buffer.kind == BufferKind::kInput) buffer.offset = offset;
    CHECK_THROWS_AS(workers.add(Mode::kTrain, kRows, 0, program), Error);
  }
}

TEST_CASE("after faults of several workers at once, the state counts the batches that have ended well") {
  Samples<float> samples(kSamples, kIn, kClasses);
  for (auto& label : samples.y) label = kClasses;
  const Run run = train(samples, 4, 0, Push::kAtomic);
  CHECK(run.result.fault == Fault::kLabel);
  CHECK(run.totals.updates == 0);
  CHECK(run.state.updates == 0);
  CHECK(run.state.draws == 0);
}

TEST_CASE("a run adds only its own updates to the state, even if the totals were not zero") {
  const Samples<float> samples(kSamples, kIn, kClasses);
  const Perceptron shape{kRows, kIn, kHidden, kClasses};
  static const std::vector<double> rates(1000, 0.05);
  Memory<float> memory(shape);
  Workers workers(memories(memory), {1, 1, 0, true}, 2, Workers::kNoBound);
  for (int w = 0; w < 2; ++w) workers.add(Mode::kTrain, kRows, w, of_worker(shape, 0, Push::kAtomic, workers.view(w)));
  ArraySource source(fields_of(samples, kIn), {.samples = kSamples, .batch_size = kRows, .seed = 3, .shuffle = true});
  Feed feed{&source, {}, false};
  TrainState state;
  Totals totals;
  int64_t failed = -1;
  ChunkOptions options = options_with(rates);
  options.most_steps = 4;
  for (const int64_t updates : {4, 8}) {
    workers.chunk(feed, options, &state, &totals, &failed);
    CHECK(totals.updates == updates);
    CHECK(state.updates == updates);
    CHECK(state.draws == static_cast<uint64_t>(updates));
  }
}

}  // namespace gradring
