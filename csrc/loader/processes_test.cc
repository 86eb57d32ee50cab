// Tests a pipeline whose workers are processes. The test forks them, so that the sanitizers see both sides.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>
#include <random>
#include <vector>

#include "loader/pipeline.h"

namespace gradring {

namespace {

using std::chrono::milliseconds;

// A source of rows: sample s has kWidth elements, all s * 3. One in `fails_every` samples fails.
class Triples final : public Source {
 public:
  static constexpr int64_t kWidth = 700;  // long enough for kills in the middle of a row
  explicit Triples(int64_t fails_every) : fails_every_(fails_every) {}
  int64_t length() const noexcept override { return 500; }
  const std::vector<FieldSpec>& fields() const noexcept override { return fields_; }
  Status read(const ReadRequest& request, int64_t* failed_row) const noexcept override {
    auto* x = reinterpret_cast<int64_t*>(request.fields[0]);
    for (int64_t row = 0; row < request.rows; ++row) {
      const int64_t sample = request.samples[row];
      if (fails_every_ > 0 && sample % fails_every_ == 1) {
        *failed_row = row;
        return Status(Code::kIo, "sample %lld is bad", static_cast<long long>(sample));
      }
      for (int64_t i = 0; i < kWidth; ++i) x[row * kWidth + i] = sample * 3;
    }
    return {};
  }

 private:
  int64_t fails_every_;
  std::vector<FieldSpec> fields_{{"x", Dtype::kInt64, {kWidth}}};
};

// A pipeline and its processes, all of which the destructor ends.
class Crew {
 public:
  Crew(std::shared_ptr<const Source> source, uint32_t workers, int64_t batch_size, uint32_t cells)
      : filler_(source, batch_size), pids_(workers, -1), pidfds_(workers, -1) {
    PipelineOptions options;
    options.batch_size = batch_size;
    options.workers = options.active = workers;
    options.cells = cells;
    options.processes = true;
    options.memory_budget = size_t{64} << 20;
    pipeline_ = std::make_unique<Pipeline>(nullptr, source->fields(), options);
    for (uint32_t stripe = 0; stripe < workers; ++stripe) hire(stripe);
  }
  ~Crew() {
    pipeline_->close();
    pipeline_->control().run().turn.publish(RunBlock::kQuit);
    for (uint32_t stripe = 0; stripe < pids_.size(); ++stripe) bury(stripe);
  }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  void hire(uint32_t stripe) {
    const pid_t parent = getpid();
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      SlotPool& slots = *pipeline_->slots();
      Worker worker(pipeline_->control(), filler_, slots.map(), stripe);
      worker.serve([parent] { return getppid() == parent; });
      _exit(0);
    }
    pids_[stripe] = pid;
    pidfds_[stripe] = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    REQUIRE(pidfds_[stripe] >= 0);
    pipeline_->set_process(stripe, pidfds_[stripe]);
  }
  void kill_one(uint32_t stripe) const { kill(pids_[stripe], SIGKILL); }
  void stop_one(uint32_t stripe) const {
    REQUIRE(kill(pids_[stripe], SIGSTOP) == 0);
    int status = 0;
    REQUIRE(waitpid(pids_[stripe], &status, WUNTRACED) == pids_[stripe]);
    REQUIRE(WIFSTOPPED(status));
  }
  void continue_one(uint32_t stripe) const { REQUIRE(kill(pids_[stripe], SIGCONT) == 0); }
  uint64_t rows_of(uint32_t stripe) const {
    return pipeline_->control().worker(stripe).rows.load(std::memory_order_relaxed);  // the ring gives the order
  }

  void take_one() {
    Delivery got;
    REQUIRE(pipeline_->next(&got, deadline_in(std::chrono::seconds(20))) == Delivered::kBatch);
    pipeline_->slots()->give(got.slot);
  }

  // Reads the rest of the run, and returns its samples in order. A new process replaces one that dies during the run.
  std::vector<int64_t> read_all(const std::function<void()>& after_each = [] {}) {
    std::vector<int64_t> order;
    for (;;) {
      Delivery got;
      const Delivered result = pipeline_->next(&got, deadline_in(milliseconds(20)));
      if (result == Delivered::kTimeout) {
        for (int stripe; (stripe = pipeline_->dead_stripe()) >= 0;) {
          bury(static_cast<uint32_t>(stripe));
          pipeline_->recover_stripe(static_cast<uint32_t>(stripe), true);
          hire(static_cast<uint32_t>(stripe));
          ++successors;
        }
        continue;
      }
      if (result == Delivered::kEnd) return order;
      if (result == Delivered::kFailed) {
        order.push_back(-1 - pipeline_->failed_part().failed_sample);
        return order;
      }
      REQUIRE(result == Delivered::kBatch);
      const std::byte* slot = pipeline_->slots()->data(got.slot);
      const auto* samples = reinterpret_cast<const int64_t*>(slot);
      const auto* x = reinterpret_cast<const int64_t*>(slot + pipeline_->layout().offsets[0]);
      bool right = true;
      for (int64_t i = 0; i < got.rows * Triples::kWidth; ++i)
        right = right && x[i] == samples[i / Triples::kWidth] * 3;
      REQUIRE(right);
      order.insert(order.end(), samples, samples + got.rows);
      pipeline_->slots()->give(got.slot);
      after_each();
    }
  }
  Pipeline& pipeline() { return *pipeline_; }
  int successors = 0;

 private:
  void bury(uint32_t stripe) {
    if (pids_[stripe] < 0) return;
    REQUIRE(waitpid(pids_[stripe], nullptr, 0) == pids_[stripe]);
    close(pidfds_[stripe]);
    pids_[stripe] = pidfds_[stripe] = -1;
  }

  Filler filler_;
  std::unique_ptr<Pipeline> pipeline_;
  std::vector<pid_t> pids_;
  std::vector<int> pidfds_;
};

std::vector<int64_t> expected(const OrderOptions& options) {
  const Order order(options);
  std::vector<int64_t> samples(static_cast<size_t>(options.samples));
  for (int64_t batch = 0, at = 0; batch < order.batches(); at += order.rows(batch++)) {
    order.samples(batch, 0, order.rows(batch), samples.data() + at);
  }
  return samples;
}

}  // namespace

TEST_CASE("processes give the stream that the order says, epoch after epoch") {
  const OrderOptions order{.samples = 500, .batch_size = 7, .seed = 2, .shuffle = true};
  for (uint32_t workers : {1u, 3u, 5u}) {
    Crew crew(std::make_shared<Triples>(0), workers, 7, 3);
    for (int epoch = 0; epoch < 3; ++epoch) {
      crew.pipeline().start(order, false);
      CHECK(crew.read_all() == expected(order));
    }
    // Leave a run early, then start a new one.
    crew.pipeline().start(order, false);
    crew.take_one();
    crew.pipeline().start(order, false);
    CHECK(crew.read_all() == expected(order));
  }
}

TEST_CASE("processes killed at random moments leave the stream as it is") {
  const OrderOptions order{.samples = 500, .batch_size = 6, .seed = 5, .shuffle = true};
  std::mt19937 random(std::random_device{}());
  Crew crew(std::make_shared<Triples>(0), 2, 6, 3);
  for (int epoch = 0; epoch < 3; ++epoch) {
    crew.pipeline().start(order, false);
    const auto seen = crew.read_all([&] {
      if (random() % 6 == 0) crew.kill_one(random() % 2);
      if (random() % 4 == 0) usleep(random() % 300);
    });
    REQUIRE(seen == expected(order));
  }
  CHECK(crew.successors > 0);
}

TEST_CASE("processes that rest, are killed and come back leave the stream as it is") {
  OrderOptions order{.samples = 500, .batch_size = 9, .seed = 7, .shuffle = true};
  std::mt19937 random(std::random_device{}());
  Crew crew(std::make_shared<Triples>(11), 3, 9, 4);
  for (uint64_t epoch = 0; epoch < 12; ++epoch) {
    order.epoch = epoch;
    crew.pipeline().start(order, true);
    const auto seen = crew.read_all([&] {
      if (random() % 3 == 0) crew.pipeline().set_active(1 + random() % 3);
      if (random() % 4 == 0) usleep(random() % 300);
      if (epoch % 2 == 1 && random() % 40 == 0) crew.kill_one(random() % 3);
    });
    std::vector<int64_t> good;
    for (const int64_t sample : expected(order)) {
      if (sample % 11 != 1) good.push_back(sample);
    }
    REQUIRE(seen == good);
  }
}

TEST_CASE("a process that rests has no share, and is not waited for") {
  const OrderOptions order{.samples = 500, .batch_size = 10};
  Crew crew(std::make_shared<Triples>(0), 2, 10, 3);
  crew.pipeline().start(order, false);
  crew.pipeline().set_active(1);
  for (int i = 0; i < 10; ++i) crew.take_one();
  // All batches that were allowed before are taken. A stopped process would now delay every batch of which it owes
  // rows.
  crew.stop_one(1);
  const uint64_t rows = crew.rows_of(1);
  for (int i = 10; i < 40; ++i) crew.take_one();
  CHECK(crew.rows_of(1) == rows);
  crew.continue_one(1);
  SUBCASE("though its death is told") {
    crew.kill_one(1);
    int taken = 0;
    Delivery got;
    while (crew.pipeline().next(&got, deadline_in(std::chrono::seconds(20))) == Delivered::kBatch && taken < 10) {
      crew.pipeline().slots()->give(got.slot);
      usleep(20'000);
      ++taken;
    }
    CHECK(taken < 10);
    CHECK(crew.pipeline().dead_stripe() == 1);
    CHECK(crew.read_all().size() == static_cast<size_t>(500 - 400 - 10 * taken));
    CHECK(crew.successors == 1);
    return;
  }
  crew.pipeline().set_active(2);
  for (int i = 40; i < 50; ++i) crew.take_one();
  CHECK(crew.rows_of(1) > rows);
}

TEST_CASE("processes skip bad samples, or fail at the right place") {
  OrderOptions order{.samples = 500, .batch_size = 8};
  for (uint32_t workers : {1u, 3u}) {
    Crew crew(std::make_shared<Triples>(9), workers, 8, 3);
    crew.pipeline().start(order, true);
    std::vector<int64_t> good;
    for (int64_t i = 0; i < 500; ++i) {
      if (i % 9 != 1) good.push_back(i);
    }
    CHECK(crew.read_all() == good);
    order.start = 16;
    crew.pipeline().start(order, false);
    CHECK(crew.read_all() == std::vector<int64_t>{-1 - 19});
    order.start = 0;
  }
}

}  // namespace gradring
