#include "runtime/team.h"

#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

#include "runtime/status.h"

namespace gradring {

namespace {

constexpr int kMaxLanes = 256;
std::atomic<uint64_t> forks{0};

void count_forks_in_children() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  });
}

}  // namespace

struct alignas(64) Team::Worker {
  Signal work;
  uint32_t sequence = 0;  // lane 0 alone
  Team* team = nullptr;
  int index = 0;
  pthread_t thread{};
};

Team::Team(int lanes) : size_(lanes), born_in_fork_(0) {
  if (lanes < 1 || lanes > kMaxLanes) {
    throw Error(Code::kInvalidArgument,
                "[team] threads is " + std::to_string(lanes) + ": must be between 1 and " + std::to_string(kMaxLanes));
  }
  count_forks_in_children();
  born_in_fork_ = forks.load(std::memory_order_relaxed);
}

Team::~Team() {
  // In a forked child the threads do not exist, so there is nothing to join.
  if (started_ && born_in_fork_ == forks.load(std::memory_order_relaxed)) stop_threads();
  std::free(scratch_);
}

void Team::reserve(size_t bytes_per_lane, size_t shared_bytes) {
  const auto round_up = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  bytes_per_lane = round_up(bytes_per_lane);
  shared_bytes = round_up(shared_bytes);
  if (bytes_per_lane <= lane_bytes_ && shared_bytes <= shared_bytes_) return;
  if (bytes_per_lane < lane_bytes_) bytes_per_lane = lane_bytes_;
  if (shared_bytes < shared_bytes_) shared_bytes = shared_bytes_;
  void* grown = nullptr;
  const size_t total = bytes_per_lane * static_cast<size_t>(size_) + shared_bytes;
  if (posix_memalign(&grown, 4096, total ? total : 64) != 0) {
    throw Error(Code::kOutOfMemory, "[team] cannot allocate " + std::to_string(total) + " bytes of scratch memory");
  }
  std::free(scratch_);
  scratch_ = static_cast<std::byte*>(grown);
  lane_bytes_ = bytes_per_lane;
  shared_bytes_ = shared_bytes;
}

bool Team::start_threads() noexcept {
  const uint64_t generation = forks.load(std::memory_order_relaxed);
  if (started_ && born_in_fork_ == generation) return true;
  // After a fork the old workers' memory is left alone: their threads live on in the parent only.
  if (started_) (void)workers_.release();
  born_in_fork_ = generation;
  arrived_.store(0, std::memory_order_relaxed);
  workers_.reset(new (std::nothrow) Worker[static_cast<size_t>(size_ - 1)]);
  if (!workers_) return false;
  for (int i = 0; i < size_ - 1; ++i) {
    workers_[i].team = this;
    workers_[i].index = i + 1;
    const auto main = [](void* argument) -> void* {
      auto& worker = *static_cast<Worker*>(argument);
      worker.team->work(worker);
      return nullptr;
    };
    if (pthread_create(&workers_[i].thread, nullptr, main, &workers_[i]) != 0) {
      // The machine refuses more threads: this team goes on with those it got.
      size_ = i + 1;
      break;
    }
    char name[32];
    std::snprintf(name, sizeof name, "gradring-%d", i + 1);
    pthread_setname_np(workers_[i].thread, name);
  }
  started_ = true;
  return true;
}

void Team::stop_threads() noexcept {
  lanes_ = -1;
  for (int i = 0; i < size_ - 1; ++i) workers_[i].work.publish(++workers_[i].sequence);
  for (int i = 0; i < size_ - 1; ++i) pthread_join(workers_[i].thread, nullptr);
}

void Team::work(Worker& worker) noexcept {
  uint32_t seen = 0;
  for (;;) {
    worker.work.wait_change(seen);
    seen = worker.work.value();
    if (lanes_ < 0) return;
    const int lanes = lanes_;
    body_(context_, Lane{this, worker.index, lanes});
    arrive(lanes);
  }
}

void Team::run_erased(int lanes, Entry body, void* context) noexcept {
  if (lanes > size_) lanes = size_;
  if (lanes > 1 && !start_threads()) lanes = 1;
  if (lanes > size_) lanes = size_;
  if (lanes <= 1) {
    body(context, Lane{this, 0, 1});
    return;
  }
  body_ = body;
  context_ = context;
  lanes_ = lanes;
  for (int i = 0; i < lanes - 1; ++i) workers_[i].work.publish(++workers_[i].sequence);
  body(context, Lane{this, 0, lanes});
  barrier(lanes);
}

// True for the last lane to arrive, which also opens the next phase.
bool Team::arrive(int count) noexcept {
  const uint32_t phase = phase_.value();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 != static_cast<uint32_t>(count)) return false;
  arrived_.store(0, std::memory_order_relaxed);
  phase_.publish((phase + 1) & 0x7fffffffu);
  return true;
}

void Team::barrier(int count) noexcept {
  const uint32_t phase = phase_.value();
  if (!arrive(count)) phase_.wait_change(phase);
}

}  // namespace gradring
