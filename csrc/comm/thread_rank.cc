#include "comm/thread_rank.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/clock.h"
#include "runtime/forks.h"

namespace gradring {

struct ThreadRank::Shared {
  std::mutex mutex;
  std::shared_ptr<ControlBlock> control;
  int rank = 0;
  // In a forked child, the thread that ends is not the parent's, and neither is the rank.
  uint64_t forks = forks_so_far();
  const void* user = nullptr;  // the address of ThisThread of the thread that used the rank last
};

// A thread-local object: its destructor runs when the thread ends.
struct ThreadRank::ThisThread {
  std::vector<std::weak_ptr<Shared>> ranks;

  ~ThisThread() {
    for (const auto& weak : ranks) {
      const std::shared_ptr<Shared> shared = weak.lock();
      if (!shared || shared->forks != forks_so_far()) continue;
      const std::lock_guard lock(shared->mutex);
      if (shared->user != this || !shared->control) continue;
      RankState& state = shared->control->state(shared->rank);
      state.ended_ns.store(monotonic_ns(), std::memory_order_release);
      Presence present = Presence::kPresent;
      state.presence.compare_exchange_strong(present, Presence::kThreadEnded, std::memory_order_acq_rel,
                                             std::memory_order_acquire);
      shared->user = nullptr;
    }
  }
};

ThreadRank::ThreadRank(std::shared_ptr<ControlBlock> control, int rank) : shared_(std::make_shared<Shared>()) {
  shared_->control = std::move(control);
  shared_->rank = rank;
}

ThreadRank::~ThreadRank() {
  if (shared_->forks != forks_so_far()) return;
  const std::lock_guard lock(shared_->mutex);
  shared_->control.reset();
}

void ThreadRank::touch() {
  thread_local ThisThread this_thread;
  const std::lock_guard lock(shared_->mutex);
  if (shared_->user == &this_thread) return;
  auto& ranks = this_thread.ranks;
  const auto gone = [](const std::weak_ptr<Shared>& weak) { return weak.expired(); };
  ranks.erase(std::remove_if(ranks.begin(), ranks.end(), gone), ranks.end());
  const auto mine = [this](const std::weak_ptr<Shared>& weak) { return weak.lock() == shared_; };
  if (std::none_of(ranks.begin(), ranks.end(), mine)) ranks.push_back(shared_);
  shared_->user = &this_thread;
  Presence ended = Presence::kThreadEnded;
  shared_->control->state(shared_->rank)
      .presence.compare_exchange_strong(ended, Presence::kPresent, std::memory_order_acq_rel,
                                        std::memory_order_acquire);
}

}  // namespace gradring
