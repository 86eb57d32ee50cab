#include "runtime/team.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

#include "runtime/forks.h"
#include "runtime/huge_pages.h"
#include "runtime/round_up.h"
#include "runtime/status.h"

namespace gradring {

namespace {

constexpr int kMaxLanes = 256;
constexpr int kFlatLanes = 9;

}  // namespace

struct alignas(64) Team::Seat {
  Signal work;
  Signal arrived;
  uint64_t sequence = 0;           // how many barriers and joins this lane has passed; only the lane itself uses it
  uint32_t work_sequence = 0;      // the number of the last work for this lane; only lane 0 uses it
  std::atomic<uint32_t> taken{0};  // the number of the last work that this lane, or lane 0 in its place, has begun
  Team* team = nullptr;
  int index = 0;
  pthread_t thread{};

  bool take(uint32_t number) noexcept {
    uint32_t before = (number - 1) & Signal::kValueMask;
    return taken.compare_exchange_strong(before, number & Signal::kValueMask, std::memory_order_relaxed,
                                         std::memory_order_relaxed);
  }
};

Team::Team(int lanes) : LaneTeam(lanes), born_in_fork_(forks_so_far()) {
  if (lanes < 1 || lanes > kMaxLanes) {
    throw Error(Code::kInvalidArgument,
                "[team] threads is " + std::to_string(lanes) + ": must be between 1 and " + std::to_string(kMaxLanes));
  }
}

Team::~Team() {
  // In a forked child the threads do not exist, so there is nothing to join.
  if (started_ && born_in_fork_ == forks_so_far()) stop_threads();
  std::free(scratch_);
}

void Team::reserve(size_t bytes_per_lane, size_t shared_bytes) {
  bytes_per_lane = round_up(bytes_per_lane);
  shared_bytes = round_up(shared_bytes);
  if (bytes_per_lane <= lane_bytes_ && shared_bytes <= shared_bytes_) return;
  if (bytes_per_lane < lane_bytes_) bytes_per_lane = lane_bytes_;
  if (shared_bytes < shared_bytes_) shared_bytes = shared_bytes_;
  void* grown = nullptr;
  const size_t total = bytes_per_lane * static_cast<size_t>(size_) + shared_bytes;
  // Packed panels are walked from end to end, by many rows of other arrays at a time: huge pages save the walks of page tables. Where
  // there is no address space for the larger alignment, small pages serve as well.
  const size_t huge =
      total >= kHugePage / 2 && total < SIZE_MAX / 2 ? (total + kHugePage - 1) / kHugePage * kHugePage : 0;
  if (huge && posix_memalign(&grown, kHugePage, huge) == 0) {
    advise_huge_pages(grown, huge);
  } else if (posix_memalign(&grown, 4096, total ? total : 64) != 0) {
    throw Error(Code::kOutOfMemory, "[team] cannot allocate " + std::to_string(total) + " bytes of scratch memory");
  }
  std::free(std::exchange(scratch_, static_cast<std::byte*>(grown)));
  lane_bytes_ = bytes_per_lane;
  shared_bytes_ = shared_bytes;
}

bool Team::start_threads() noexcept {
  const uint64_t generation = forks_so_far();
  if (started_ && born_in_fork_ == generation) return true;
  // In a forked child, leave the memory of the old seats alone: their threads exist only in the parent.
  if (started_) (void)seats_.release();
  started_ = false;
  born_in_fork_ = generation;
  sequence_ = refreshed_ = 0;
  placed_beside_ = -1;
  may_place_ = {};
  seats_.reset(new (std::nothrow) Seat[static_cast<size_t>(size_)]);
  if (!seats_) return false;
  // Workers inherit this mask, so a signal such as Ctrl-C goes to the program's own threads and never to the workers. Signals of
  // faults and of profilers are not blocked.
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF}) sigdelset(&blocked, number);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  for (int i = 1; i < size_; ++i) {
    Seat& seat = seats_[i];
    seat.team = this;
    seat.index = i;
    const auto main = [](void* argument) -> void* {
      auto& own = *static_cast<Seat*>(argument);
      own.team->work(own);
      return nullptr;
    };
    if (pthread_create(&seat.thread, nullptr, main, &seat) != 0) {
      // The system refuses more threads, so this team continues with those that it has.
      size_ = i;
      break;
    }
    char name[32];
    std::snprintf(name, sizeof name, "gradring-%d", i);
    pthread_setname_np(seat.thread, name);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  started_ = true;
  return true;
}

void Team::stop_threads() noexcept {
  lanes_ = -1;
  for (int i = 1; i < size_; ++i) seats_[i].work.publish(++seats_[i].work_sequence);
  for (int i = 1; i < size_; ++i) pthread_join(seats_[i].thread, nullptr);
}

// Keeps the workers off the core that lane 0 runs on. Some schedulers wake a thread on the waker's core, or on the core that
// the thread last ran on, although another core is idle, and leave both threads there for many milliseconds: two lanes are then
// slower than one. Moving a thread that sleeps, or that waits for a core, costs one system call; moving a thread that runs
// costs a hundred microseconds. So lane 0 does this before it wakes the workers, and only when it has moved itself. If there
// are as many lanes as cores, each lane gets a core of its own. The cores are those that lane 0's thread may use.
void Team::place(int core) noexcept {
  const Deadline now = Clock::now();
  if (now < may_place_) return;
  may_place_ = now + std::chrono::microseconds(500);
  cpu_set_t cores;
  if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof cores, &cores) != 0) return;
  placed_beside_ = core;
  if (CPU_COUNT(&cores) > 1) CPU_CLR(static_cast<size_t>(core), &cores);
  const bool one_each = CPU_COUNT(&cores) == size_ - 1;
  size_t next = 0;
  for (int i = 1; i < size_; ++i) {
    cpu_set_t own = cores;
    if (one_each) {
      while (!CPU_ISSET(next, &cores)) ++next;
      CPU_ZERO(&own);
      CPU_SET(next++, &own);
    }
    pthread_setaffinity_np(seats_[i].thread, sizeof own, &own);
  }
}

inline void Team::keep_apart() noexcept {
  if (const int core = current_cpu(); core != placed_beside_) place(core);
}

void Team::work(Seat& seat) noexcept {
  uint32_t seen = 0;
  for (;;) {
    seat.work.wait_change(seen);
    seen = seat.work.value();
    if (!seat.take(seen)) continue;  // lane 0 has already run this lane's part
    if (lanes_ < 0) return;
    seat.sequence = sequence_;
    body_(context_, Lane{this, seat.index, lanes_});
    seat.arrived.publish(static_cast<uint32_t>(++seat.sequence));
  }
}

// Publishes the work to the workers. Returns how many lanes run it; if that is 1, the caller runs it alone and no worker
// received it.
int Team::hand_out(int lanes, Entry body, void* context) noexcept {
  if (lanes > size_) lanes = size_;
  if (lanes > 1 && !start_threads()) lanes = 1;
  if (lanes > size_) lanes = size_;
  if (lanes <= 1) return 1;
  if (sequence_ - refreshed_ > (uint64_t{1} << 29)) refresh_arrivals();
  body_ = body;
  context_ = context;
  lanes_ = lanes;
  keep_apart();
  for (int i = 1; i < lanes; ++i) seats_[i].work.publish(++seats_[i].work_sequence);
  seats_[0].sequence = sequence_;
  return lanes;
}

void Team::run_erased(int lanes, Entry body, void* context) noexcept {
  lanes = hand_out(lanes, body, context);
  body(context, Lane{this, 0, lanes});
  if (lanes == 1) return;
  Seat& own = seats_[0];
  keep_apart();
  const auto target = static_cast<uint32_t>(++own.sequence);
  for (int i = 1; i < lanes; ++i) seats_[i].arrived.wait_reached(target & Signal::kValueMask);
  sequence_ = own.sequence;
}

void Team::run_each_erased(int lanes, Entry body, void* context) noexcept {
  lanes = hand_out(lanes, body, context);
  body(context, Lane{this, 0, lanes});
  if (lanes == 1) return;
  Seat& own = seats_[0];
  const auto target = static_cast<uint32_t>(++own.sequence);
  bool others[kMaxLanes];
  for (int i = 1; i < lanes; ++i) {
    others[i] = !seats_[i].take(seats_[i].work_sequence);
    if (!others[i]) body(context, Lane{this, i, lanes});
  }
  for (int i = 1; i < lanes; ++i) {
    if (others[i]) seats_[i].arrived.wait_reached(target & Signal::kValueMask);
  }
  sequence_ = own.sequence;
}

bool Team::asleep(int lanes) const noexcept {
  if (!started_) return lanes > 1;
  for (int i = 1; i < lanes && i < size_; ++i)
    if (seats_[i].work.sleeper()) return true;
  return false;
}

// Sets all lanes to the current sequence number while all are idle. A lane that has not run for 2^30 barriers would otherwise
// look as if it were ahead of the others.
void Team::refresh_arrivals() noexcept {
  for (int i = 0; i < size_; ++i) seats_[i].arrived.publish(static_cast<uint32_t>(sequence_));
  refreshed_ = sequence_;
}

void LaneTeam::barrier(const Lane& lane) noexcept { static_cast<Team*>(this)->meet(lane); }

void Team::meet(const Lane& lane) noexcept {
  Seat& own = seats_[lane.index];
  const auto target = static_cast<uint32_t>(++own.sequence) & Signal::kValueMask;
  if (lane.index == 0) keep_apart();
  if (lane.count < kFlatLanes) {
    own.arrived.publish(target);
    for (int i = 0; i < lane.count; ++i) {
      if (i != lane.index) seats_[i].arrived.wait_reached(target);
    }
  } else if (lane.index == 0) {
    for (int i = 1; i < lane.count; ++i) seats_[i].arrived.wait_reached(target);
    own.arrived.publish(target);
  } else {
    own.arrived.publish(target);
    seats_[0].arrived.wait_reached(target);
  }
}

}  // namespace gradring
