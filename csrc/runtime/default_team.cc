#include "runtime/default_team.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/cpu.h"
#include "runtime/status.h"

namespace gradring {

namespace {

std::atomic<bool> busy{false};
std::atomic<int> wanted{0};
// The team is never destroyed at exit, because a daemon thread of the host program may still be computing then.
Team* team = nullptr;
double done_alone = 0;  // nanoseconds of work that one lane did while the others slept
int team_size = 0;      // the size that was asked for: the team has fewer lanes where the system refuses threads

// Makes the team free in a forked child, where the thread that held it does not exist. That thread may have been changing the team,
// or replacing it, so the child leaves this team in memory and makes another one.
void forget_holder_in_children() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] {
      if (busy.exchange(false, std::memory_order_acq_rel)) team = nullptr;
    });
  });
}

bool try_hold() noexcept { return !busy.exchange(true, std::memory_order_acquire); }
void let_go() noexcept { busy.store(false, std::memory_order_release); }

Team& own_team() {
  static thread_local Team one(1);
  return one;
}

}  // namespace

int default_lanes() noexcept {
  int lanes = wanted.load(std::memory_order_relaxed);
  if (lanes == 0) {
    lanes = usable_cores();
    if (lanes > 256) lanes = 256;
    wanted.store(lanes, std::memory_order_relaxed);
  }
  return lanes;
}

void set_default_lanes(int lanes) {
  if (lanes < 1 || lanes > 256) {
    throw Error(Code::kInvalidArgument,
                "[set_num_threads] n is " + std::to_string(lanes) + ": must be between 1 and 256");
  }
  wanted.store(lanes, std::memory_order_relaxed);
}

Lane lone_lane() noexcept {
  static Team* const empty = new Team(1);  // never destroyed, for the same reason as `team`
  return {empty, 0, 1};
}

TeamLease::TeamLease(int lanes, size_t bytes_per_lane, size_t shared_bytes) {
  if (lanes > 1) {
    forget_holder_in_children();
    shared_ = try_hold();
  }
  try {
    if (shared_) {
      const int size = default_lanes();
      if (!team || team_size != size) {
        delete team;
        team = nullptr;
        team = new Team(size);
        done_alone = 0;
        team_size = size;
      }
      lanes_ = lanes < size ? lanes : size;
      team_ = team;
    } else {
      team_ = &own_team();
    }
    team_->reserve(bytes_per_lane, shared_bytes);
  } catch (...) {
    if (shared_) let_go();
    throw;
  }
}

TeamLease::~TeamLease() {
  if (shared_) let_go();
}

bool TeamLease::worth_waking(double nanoseconds) noexcept {
  constexpr double kWakeCosts = 60000;  // the caller spends a third of it; in the rest the worker starts to run
  if (!shared_ || !team_->asleep(lanes_)) return true;
  done_alone += nanoseconds;
  if (done_alone < kWakeCosts) return false;
  done_alone = 0;
  return true;
}

}  // namespace gradring
