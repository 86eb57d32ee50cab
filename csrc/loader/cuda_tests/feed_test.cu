// The feed of a device: each bug of feed_plant.h is found in one of the schedules, and the feed without a bug is clean in all of
// them; backpressure, failing calls, and an end in the middle of copies.
#ifdef GRADRING_SOFTWARE_DEVICE
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "cuda/device_feed.h"
#include "cuda/feed_plant.h"
#include "cuda/pool.h"
#include "cuda/software/tests/apart.h"
#include "cuda/software/tests/device_array.h"
#include "runtime/status.h"

using namespace gradring;
using cuda::DeviceFeed;
using cuda::FeedPlant;

namespace {

constexpr int64_t kRows = 16, kColumns = 24, kBatches = 14;
constexpr size_t kRowBytes = kColumns * sizeof(int64_t);
constexpr uint32_t kHostSlots = 3;

int64_t value_at(int64_t batch, int64_t i) { return batch * 1000 + i; }

// Batches in pinned memory, each field behind the other. A host slot is used again as soon as it has been released.
class Ring final : public BatchSource {
 public:
  explicit Ring(int64_t batches) : batches_(batches) {
    REQUIRE(cudaMallocHost(reinterpret_cast<void**>(&memory_), kHostSlots * kRows * (kRowBytes + 8)) == cudaSuccess);
  }
  ~Ring() override { (void)cudaFreeHost(memory_); }
  Status next(Batch* batch, Deadline) noexcept override {
    *batch = {};
    if (made_ == batches_) return {};
    uint32_t slot = 0;
    while (slot < kHostSlots && busy_[slot].load(std::memory_order_acquire)) ++slot;
    if (slot == kHostSlots) return {Code::kTimeout, "no slot"};
    busy_[slot].store(true, std::memory_order_relaxed);
    int64_t* const x = memory_ + slot * kRows * (kColumns + 1);
    for (int64_t i = 0; i < kRows * kColumns; ++i) x[i] = value_at(made_, i);
    for (int64_t i = 0; i < kRows; ++i) x[kRows * kColumns + i] = made_;
    batch->fields[0] = x, batch->fields[1] = x + kRows * kColumns;
    batch->rows = kRows, batch->position = made_ * kRows, batch->slot = slot;
    ++made_;
    return {};
  }
  void fill(const Lane&, const Batch&) noexcept override {}
  void release(const Batch& batch) noexcept override { busy_[batch.slot].store(false, std::memory_order_release); }

  int busy() const {
    int count = 0;
    for (const auto& each : busy_) count += each.load(std::memory_order_acquire);
    return count;
  }

 private:
  int64_t batches_, made_ = 0;
  int64_t* memory_ = nullptr;
  std::atomic<bool> busy_[kHostSlots] = {};
};

__global__ void add_all(const int64_t* x, const int64_t* labels, int n, int64_t* sum) {
  for (int i = static_cast<int>(device::thread_in_grid()); i < n; i += static_cast<int>(device::threads_in_grid()))
    sum[i] += x[i] * (i + 1) + labels[i / kColumns];
}

cudaError_t use(const DeviceFeed& feed, const DeviceFeed::Handed& batch, int64_t* sum, cudaStream_t stream) {
  const auto* const x = reinterpret_cast<const int64_t*>(batch.data + feed.offsets()[0]);
  const auto* const labels = reinterpret_cast<const int64_t*>(batch.data + feed.offsets()[1]);
  return LAUNCH(add_all, dim3(2), dim3(64), 0, stream, x, labels, static_cast<int>(kRows * kColumns), sum);
}

int64_t expected(int64_t begin, int64_t step, int64_t i) {
  int64_t sum = 0;
  for (int64_t batch = begin; batch < kBatches; batch += step) sum += value_at(batch, i) * (i + 1) + batch;
  return sum;
}

// Two streams use the batches: `a` all of them, `b` every third, and batch 5 in a graph that is launched after the batch was
// dropped. Nothing waits on the host before the end.
int program(FeedPlant plant) {
  the_plant<FeedPlant> = plant;
  Ring ring(kBatches);
  cudaStream_t a = nullptr, b = nullptr;
  OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  constexpr int kElements = kRows * kColumns;
  const testing::DeviceArray<int64_t> sum_a(std::vector<int64_t>(kElements), 0),
      sum_b(std::vector<int64_t>(kElements), 0), sum_graph(std::vector<int64_t>(kElements), 0);
  cudaGraphExec_t work = nullptr;
  {
    DeviceFeed feed(ring, {kRowBytes, 8}, kRows, {.device = 0, .slots = 2, .most = 3});
    for (int64_t number = 0;; ++number) {
      DeviceFeed::Handed batch;
      const Status status = feed.next(&batch, a, deadline_in(std::chrono::seconds(20)));
      if (!status.ok()) return 2;
      if (batch.rows == 0) break;
      if (batch.position != number * kRows) return 3;
      OK(use(feed, batch, sum_a.data(), a));
      std::vector<void*> streams{a};
      cudaEvent_t handed = nullptr;
      OK(cudaEventCreateWithFlags(&handed, cudaEventDisableTiming));
      OK(cudaEventRecord(handed, a));
      if (number % 3 == 0) {
        OK(cudaStreamWaitEvent(b, handed, 0));
        OK(use(feed, batch, sum_b.data(), b));
        streams.push_back(b);
      }
      if (number == 5) {
        OK(cudaStreamWaitEvent(b, handed, 0));
        OK(cudaStreamBeginCapture(b, cudaStreamCaptureModeThreadLocal));
        OK(use(feed, batch, sum_graph.data(), b));
        streams.push_back(b);
        feed.release(batch.slot, streams);
        for (int more = 0; more < 2; ++more) {  // two more batches come while b captures
          if (!feed.next(&batch, a, deadline_in(std::chrono::seconds(20))).ok()) return 4;
          ++number;
          OK(use(feed, batch, sum_a.data(), a));
          if (number % 3 == 0) {  // b is capturing, so a does its work
            OK(use(feed, batch, sum_b.data(), a));
          }
          feed.release(batch.slot, {a});
        }
        cudaGraph_t graph = nullptr;
        OK(cudaStreamEndCapture(b, &graph));
        OK(cudaGraphInstantiate(&work, graph, 0));
        OK(cudaGraphDestroy(graph));
        OK(cudaEventRecord(handed, a));
        OK(cudaStreamWaitEvent(b, handed, 0));
        OK(cudaGraphLaunch(work, b));
      } else {
        feed.release(batch.slot, streams);
      }
      OK(cudaEventDestroy(handed));
    }
    OK(cudaStreamSynchronize(a));
    OK(cudaStreamSynchronize(b));
  }
  const std::vector<int64_t> got_a = sum_a.read(), got_b = sum_b.read(), got_graph = sum_graph.read();
  OK(cudaGraphExecDestroy(work));
  OK(cudaStreamDestroy(a));
  OK(cudaStreamDestroy(b));
  cuda::MemoryPool::trim_all();
  for (int64_t i = 0; i < kElements; ++i) {
    const auto at = static_cast<size_t>(i);
    if (got_a[at] != expected(0, 1, i) || got_b[at] != expected(0, 3, i)) return 5;
    if (got_graph[at] != value_at(5, i) * (i + 1) + 5) return 6;
  }
  return 0;
}

}  // namespace

TEST_CASE("the feed is clean in eager, lazy and twenty random schedules") {
  for (const software::Options& options : software::every_schedule(20)) {
    const software::Outcome outcome = software::run_apart(options, [] { return program(FeedPlant::kNone); });
    INFO(software::name(options), ": ", outcome.said);
    CHECK(outcome.status == 0);
  }
}

TEST_CASE("each bug that is planted into the feed is found") {
  constexpr std::pair<FeedPlant, const char*> kPlants[] = {
      {FeedPlant::kRefillBeforeCopy, "the feed returns the host's memory before it was copied"},
      {FeedPlant::kSlotReused, "a device slot is reused too early"},
      {FeedPlant::kNoArrivalWait, "the consumer does not wait for the copy"},
      {FeedPlant::kOneStreamOnly, "a batch is used on stream b and dropped on stream a"},
      {FeedPlant::kCaptureForgotten, "a batch is dropped during a capture"},
  };
  for (const auto& [plant, name] : kPlants) {
    INFO(std::string(name));
    int found = 0;
    for (const software::Options& options : software::every_schedule(20)) {
      found += software::run_apart(options, [&, bug = plant] { return program(bug); }).status != 0;
      if (found > 0) break;
    }
    CHECK(found > 0);
  }
}

TEST_CASE("a consumer that keeps every batch waits until the deadline, and goes on when one comes back") {
  software::restart({});
  the_plant<FeedPlant> = FeedPlant::kNone;
  {
    Ring ring(6);
    DeviceFeed feed(ring, {kRowBytes, 8}, kRows, {.device = 0, .slots = 2, .most = 3});
    std::vector<DeviceFeed::Handed> kept(3);
    for (auto& each : kept) REQUIRE(feed.next(&each, nullptr, deadline_in(std::chrono::seconds(20))).ok());
    CHECK(feed.slots() == 3);
    DeviceFeed::Handed more;
    CHECK(feed.next(&more, nullptr, deadline_in(std::chrono::milliseconds(20))).code() == Code::kTimeout);
    CHECK(feed.held());
    feed.release(kept[1].slot, {nullptr});
    REQUIRE(feed.next(&more, nullptr, deadline_in(std::chrono::seconds(20))).ok());
    CHECK(more.slot == kept[1].slot);
    CHECK(more.position == 3 * kRows);
  }
  cuda::MemoryPool::trim_all();
  CHECK(software::leaks() == "");
}

TEST_CASE("the feed returns the host's memory once it is copied, even if the consumer asks for no other batch") {
  software::restart({});
  {
    Ring ring(6);
    DeviceFeed feed(ring, {kRowBytes, 8}, kRows, {});
    DeviceFeed::Handed batch;
    REQUIRE(feed.next(&batch, nullptr, kNoDeadline).ok());
    CHECK(ring.busy() == 0);  // in this schedule the copy runs at once, and the host function behind it
  }
  cuda::MemoryPool::trim_all();
}

TEST_CASE("the feed may end while copies run, and batches may outlive the source") {
  for (const software::Options& options : software::every_schedule(4)) {
    software::restart(options);
    {
      auto ring = std::make_unique<Ring>(6);
      DeviceFeed feed(*ring, {kRowBytes, 8}, kRows, {});
      DeviceFeed::Handed batch;
      REQUIRE(feed.next(&batch, nullptr, kNoDeadline).ok());
      feed.end();
      CHECK(ring->busy() == 0);
      ring.reset();
      feed.release(batch.slot, {nullptr});
    }
    cuda::MemoryPool::trim_all();
    CHECK(software::leaks() == "");
  }
}

TEST_CASE(
    "every CUDA call of ten batches fails once: the error names it and the batch, nothing leaks, and no batch is "
    "lost") {
  struct Attempt {
    std::string said;
    int64_t failed_at = -1;  // the batch that next() did not bring at once
    bool whole = false;      // all ten batches came, in their order and with their content
    int busy = 0;
  };
  const auto ten = [] {
    Attempt attempt;
    Ring ring(10);
    const auto take_all = [&](DeviceFeed& feed) {
      int64_t got = 0;
      for (int tries = 0; tries < 3;) {
        DeviceFeed::Handed batch;
        const Status status = feed.next(&batch, nullptr, deadline_in(std::chrono::seconds(20)));
        if (!status.ok()) {
          attempt.said = status.message(), attempt.failed_at = got;
          ++tries;
          continue;
        }
        if (batch.rows == 0) return got == 10;
        std::vector<int64_t> x(kRows * kColumns);
        const bool read =
            cudaMemcpy(x.data(), batch.data, x.size() * sizeof x[0], cudaMemcpyDeviceToHost) == cudaSuccess;
        bool right = read && batch.position == got * kRows;
        for (size_t i = 0; right && i < x.size(); ++i) right = x[i] == value_at(got, static_cast<int64_t>(i));
        feed.release(batch.slot, {nullptr});
        if (!right) return false;
        ++got;
      }
      return false;
    };
    try {
      DeviceFeed feed(ring, {kRowBytes, 8}, kRows, {});
      attempt.whole = take_all(feed);
    } catch (const Error& error) {
      attempt.said = error.what(), attempt.whole = true;  // there is no feed that could bring any
    }
    attempt.busy = ring.busy();
    return attempt;
  };
  software::restart({});
  REQUIRE(ten().said == "");
  cuda::MemoryPool::trim_all();
  const std::map<std::string, int> calls = software::calls();
  const std::vector<software::Options> schedules = software::every_schedule(4);
  int tried = 0;
  for (const auto& [call, count] : calls) {
    if (call == "run" || call == "cudaMemcpy" || call == "cudaMallocHost" || call == "cudaFreeHost") continue;
    if (call == "cudaThreadExchangeStreamCaptureMode") continue;  // which matters only while a stream captures
    if (call == "cudaFree" || call == "cudaGetLastError" || call.find("Destroy") != std::string::npos) continue;
    for (int number = 1; number <= count; number += count > 30 ? 7 : 1) {
      software::Options options = schedules[static_cast<size_t>(tried) % schedules.size()];
      options.faults = {{call, number, cudaErrorNotPermitted}};
      const software::Outcome outcome = software::run_apart(options, [&] {
        const Attempt attempt = ten();
        std::printf("%s\n", attempt.said.c_str());
        cuda::MemoryPool::trim_all();
        if (attempt.busy != 0) return 3;
        if (!attempt.whole) return 6;
        // Who cannot record or wait for an event of a release waits on the host instead, and says nothing.
        const bool of_release = call == "cudaStreamWaitEvent" && number > count - 2;
        bool silent = of_release;
        for (const char* part : {"Record", "Query", "Capturing", "Create", "Device"})
          silent = silent || call.find(part) != std::string::npos;
        if (attempt.said.empty()) return silent ? 0 : 4;
        const std::string batch = "batch " + std::to_string(attempt.failed_at) + " of this pass: ";
        if (call.find("Async") != std::string::npos && attempt.said.find(batch) == std::string::npos) return 7;
        return attempt.said.find(call) == std::string::npos ? 5 : 0;
      });
      INFO(call, " ", number, " of ", count, ", ", software::name(options), ": ", outcome.said);
      CHECK(outcome.status == 0);
      ++tried;
    }
  }
  CHECK(tried > 30);
}
#endif
