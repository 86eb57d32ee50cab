#include "program/epoch.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <deque>

#include "loader/array_source.h"
#include "program/testing.h"
#include "runtime/count_allocations.h"

namespace gradring {

using testing::Memory;
using testing::Perceptron;
using testing::Samples;

namespace {

// An engine over a perceptron with a program for each number of rows.
struct Fixture {
  Perceptron shape;
  Memory<float> memory;
  Engine engine;

  explicit Fixture(int lanes, std::initializer_list<int64_t> rows, int64_t accumulate = 1)
      : shape{*rows.begin(), 12, 9, 4}, memory(shape), engine(memory.arenas, {lanes, accumulate, 0, true}) {
    for (const int64_t r : rows) {
      const Perceptron p{r, 12, 9, 4};
      engine.add(Mode::kTrain, r, p.program());
    }
  }

  ChunkResult chunk(BatchSource* source, Feed* feed, Totals* totals, int64_t most_steps = -1,
                    Deadline deadline = kNoDeadline) {
    static const std::vector<double> rates(100000, 0.05);
    feed->source = source;
    ChunkOptions options = engine.chunk_options();
    options.rates = rates.data();
    options.rate_count = static_cast<int64_t>(rates.size());
    options.most_steps = most_steps;
    options.deadline = deadline;
    return run_chunk(engine.team(), engine.team().lanes(), engine.programs(Mode::kTrain), feed, options,
                     &engine.state(), totals);
  }
};

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

// A source whose batches are filled elsewhere, some of them late, as a loader's ring does it. It checks the protocol.
class RingLike final : public BatchSource {
 public:
  RingLike(const Samples<float>& s, int64_t in, int64_t rows, int batches)
      : s_(s), in_(in), rows_(rows), batches_(batches) {}

  Status next(Batch* batch, Deadline) noexcept override {
    if (taken_ % 3 == 1 && !late_) {
      late_ = true;
      return {Code::kTimeout, "late"};
    }
    late_ = false;
    *batch = Batch{};
    if (taken_ == batches_) return {};
    batch->fields[0] = s_.x.data() + taken_ * rows_ * in_;
    batch->fields[1] = s_.y.data() + taken_ * rows_;
    batch->rows = rows_;
    batch->position = taken_ * rows_;
    batch->slot = static_cast<uint32_t>(taken_++);
    most_out_ = std::max(most_out_, taken_ - released_);
    return {};
  }
  void fill(const Lane&, const Batch&) noexcept override {}
  void release(const Batch& batch) noexcept override {
    in_order_ = in_order_ && batch.slot == static_cast<uint32_t>(released_);
    ++released_;
  }

  bool in_order_ = true;
  int64_t taken_ = 0, released_ = 0, most_out_ = 0;

 private:
  const Samples<float>& s_;
  int64_t in_, rows_;
  int64_t batches_;
  bool late_ = false;
};

}  // namespace

TEST_CASE("an epoch's bits do not depend on lanes, nor on how it is cut into chunks") {
  const Samples<float> samples(1000, 12, 4);
  std::vector<float> first;
  double loss = 0;
  for (const int lanes : {1, 2, 3}) {
    for (const int64_t most : {int64_t{-1}, int64_t{7}}) {
      Fixture f(lanes, {32, 1000 % 32});
      ArraySource source(fields_of(samples, 12), {.samples = 1000, .batch_size = 32, .seed = 3, .shuffle = true});
      Feed feed;
      Totals totals;
      ChunkResult result;
      do {
        result = f.chunk(&source, &feed, &totals, most);
      } while (result.end == ChunkEnd::kSteps);
      CHECK(result.end == ChunkEnd::kEpoch);
      CHECK(totals.samples == 1000);
      CHECK(totals.steps == 32);
      const std::vector<float> got = f.memory.copy(f.shape);
      if (first.empty()) {
        first = got;
        loss = totals.loss_sum;
      }
      CHECK(std::memcmp(got.data(), first.data(), got.size() * 4) == 0);
      CHECK(totals.loss_sum == loss);
    }
  }
}

TEST_CASE("a batch that no program fits waits, and is not lost") {
  const Samples<float> samples(50, 12, 4);
  Fixture f(2, {32});
  ArraySource source(fields_of(samples, 12), {.samples = 50, .batch_size = 32});
  Feed feed;
  Totals totals;
  const ChunkResult result = f.chunk(&source, &feed, &totals);
  CHECK(result.end == ChunkEnd::kProgram);
  CHECK(result.rows == 18);
  const Perceptron rest{18, 12, 9, 4};
  f.engine.add(Mode::kTrain, 18, rest.program());
  CHECK(f.chunk(&source, &feed, &totals).end == ChunkEnd::kEpoch);
  CHECK(totals.samples == 50);
}

TEST_CASE("a source that delivers late is asked again, and gets its batches back in order") {
  const Samples<float> samples(320, 12, 4);
  for (const int lanes : {1, 2}) {
    Fixture f(lanes, {32});
    RingLike source(samples, 12, 32, 10);
    Feed feed;
    Totals totals;
    int timeouts = 0;
    ChunkResult result;
    for (;;) {
      result = f.chunk(&source, &feed, &totals);
      if (result.end != ChunkEnd::kTime) break;
      ++timeouts;
    }
    CHECK(result.end == ChunkEnd::kEpoch);
    CHECK(timeouts == 4);
    CHECK(totals.steps == 10);
    CHECK(source.released_ == 10);
    CHECK(source.in_order_);
    CHECK(source.most_out_ <= 2);
  }
}

TEST_CASE("a fault names the batch, the row and the sample, and nothing has changed") {
  Samples<float> samples(320, 12, 4);
  samples.y[200] = 4;
  Fixture f(2, {32});
  ArraySource source(fields_of(samples, 12), {.samples = 320, .batch_size = 32});
  Feed feed;
  Totals totals;
  f.chunk(&source, &feed, &totals, 6);
  const std::vector<float> before = f.memory.copy(f.shape);
  const ChunkResult result = f.chunk(&source, &feed, &totals);
  CHECK(result.end == ChunkEnd::kError);
  CHECK(result.fault == Fault::kLabel);
  CHECK(result.position == 192);
  CHECK(result.row == 8);
  CHECK(result.sample == 200);
  CHECK(f.memory.copy(f.shape) == before);
  CHECK(f.engine.state().updates == 6);
  CHECK(totals.steps == 6);
}

TEST_CASE("a chunk ends at its deadline after a whole step") {
  const Samples<float> samples(3200, 12, 4);
  Fixture f(2, {32});
  ArraySource source(fields_of(samples, 12), {.samples = 3200, .batch_size = 32});
  Feed feed;
  Totals totals;
  const ChunkResult result = f.chunk(&source, &feed, &totals, -1, Clock::now());
  CHECK(result.end == ChunkEnd::kTime);
  CHECK(totals.steps == 1);
}

TEST_CASE("time is accounted for") {
  const Samples<float> samples(32000, 12, 4);
  Fixture f(2, {32});
  ArraySource source(fields_of(samples, 12), {.samples = 32000, .batch_size = 32, .shuffle = true});
  Feed feed;
  Totals totals;
  const auto start = Clock::now();
  f.chunk(&source, &feed, &totals);
  const double wall = std::chrono::duration<double>(Clock::now() - start).count();
  const double sum = totals.data_seconds + totals.compute_seconds + totals.update_seconds;
  CHECK(totals.data_seconds > 0);
  CHECK(totals.compute_seconds > 0);
  CHECK(totals.update_seconds > 0);
  CHECK(sum <= wall * 1.01);
}

#if COUNTS_ALLOCATIONS
TEST_CASE("no step allocates after the first") {
  const Samples<float> samples(1000, 12, 4);
  for (const int lanes : {1, 2}) {
    Fixture f(lanes, {32, 8});
    ArraySource source(fields_of(samples, 12), {.samples = 1000, .batch_size = 32, .shuffle = true});
    Feed feed;
    Totals totals;
    f.chunk(&source, &feed, &totals, 1);
    const long before = allocations.load(std::memory_order_relaxed);
    const ChunkResult result = f.chunk(&source, &feed, &totals);
    const long after = allocations.load(std::memory_order_relaxed);
    CHECK(result.end == ChunkEnd::kEpoch);
    CHECK(totals.steps == 32);
    CHECK(after - before == 0);
  }
  // Checks that the counter counts.
  const long before = allocations.load(std::memory_order_relaxed);
  static void* volatile kept;  // volatile, because a compiler may leave out an allocation without effect
  kept = std::malloc(100);
  std::free(kept);
  CHECK(allocations.load(std::memory_order_relaxed) > before);
}
#endif

}  // namespace gradring
