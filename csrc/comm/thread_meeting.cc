#include "comm/thread_meeting.h"

#include <string>

#include "runtime/status.h"

namespace gradring {

namespace {

constexpr int kMostRanks = 256;
constexpr uint32_t kNumberMask = Signal::kValueMask >> 1;

// Whether a rank that has come to `there` meetings has come to number `number`; numbers wrap around.
constexpr bool reached(uint32_t there, uint32_t number) noexcept {
  return ((there - number) & kNumberMask) < (1u << 29);
}

}  // namespace

struct alignas(64) ThreadMeetings::Seat final : Meeting {
  Signal progress;
  std::atomic<uint64_t> begun{0}, done{0};
  alignas(64) Brought brought[2];
  // Only the rank itself uses these.
  ThreadMeetings* all = nullptr;
  int number_of_rank = 0;
  uint32_t number = 0;  // how many meetings the rank has come to
  uint64_t updates = 0;
  Decision settled = Decision::kOpen;
  bool complete = false;

  int rank() const noexcept override { return number_of_rank; }
  int size() const noexcept override { return all->size_; }

  void come() noexcept {
    number = (number + 1) & kNumberMask;
    settled = Decision::kOpen;
  }
  bool await_others() noexcept {
    progress.publish(number << 1);
    for (int r = 0; r < all->size_; ++r)
      if (r != number_of_rank && !all->await(r, number)) return false;
    return true;
  }

  bool meet(const Brought& mine) noexcept override {
    come();
    brought[number & 1] = mine;
    complete = await_others();
    if (complete) return true;
    // Settle on abort, so that no rank can commit after this one has given up. A rank that committed earlier wins.
    settled = all->settle(number, Decision::kAbort);
    complete = settled == Decision::kCommit;
    return complete;
  }
  bool took_place() const noexcept override { return complete; }

  const Brought& of(int rank) const noexcept override {
    return all->seats_[static_cast<size_t>(rank)].brought[number & 1];
  }

  Decision settle(bool commit) noexcept override {
    settled = all->settle(number, commit ? Decision::kCommit : Decision::kAbort);
    if (settled == Decision::kCommit) begun.store(++updates, std::memory_order_release);
    return settled;
  }
  Decision decision() const noexcept override { return settled; }

  bool finish() noexcept override {
    done.store(updates, std::memory_order_release);
    come();
    return await_others();
  }
};

ThreadMeetings::ThreadMeetings(int ranks) : size_(ranks) {
  if (ranks < 1 || ranks > kMostRanks) {
    throw Error(Code::kInvalidArgument,
                "[meeting] there are " + std::to_string(ranks) + " ranks: must be 1 to " + std::to_string(kMostRanks));
  }
  seats_ = std::make_unique<Seat[]>(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; ++r) {
    seats_[static_cast<size_t>(r)].all = this;
    seats_[static_cast<size_t>(r)].number_of_rank = r;
  }
}

ThreadMeetings::~ThreadMeetings() = default;

Meeting& ThreadMeetings::of(int rank) noexcept { return seats_[static_cast<size_t>(rank)]; }

// The ranks that came to a meeting that did not take place have counted it. So all continue from the highest number.
void ThreadMeetings::enter() noexcept {
  uint32_t number = seats_[0].number;
  for (int r = 1; r < size_; ++r) {
    const uint32_t other = seats_[static_cast<size_t>(r)].number;
    if (reached(other, number)) number = other;
  }
  for (int r = 0; r < size_; ++r) {
    Seat& seat = seats_[static_cast<size_t>(r)];
    seat.number = number;
    seat.progress.publish(number << 1);
  }
}

void ThreadMeetings::leave(int rank) noexcept {
  Seat& seat = seats_[static_cast<size_t>(rank)];
  seat.progress.publish(seat.number << 1 | 1);
}

bool ThreadMeetings::await(int rank, uint32_t number) noexcept {
  Signal& progress = seats_[static_cast<size_t>(rank)].progress;
  for (;;) {
    const uint32_t now = progress.value();
    if (reached(now >> 1, number)) return true;
    if (now & 1) return false;
    progress.wait_change(now);
  }
}

Decision ThreadMeetings::settle(uint32_t number, Decision wish) noexcept {
  const uint64_t wanted = uint64_t{number} << 2 | static_cast<uint64_t>(wish);
  uint64_t seen = decision_.load(std::memory_order_acquire);
  while (seen >> 2 != number) {
    if (decision_.compare_exchange_weak(seen, wanted, std::memory_order_acq_rel, std::memory_order_acquire))
      return wish;
  }
  return static_cast<Decision>(seen & 3);
}

bool ThreadMeetings::torn() const noexcept {
  const uint64_t first = seats_[0].begun.load(std::memory_order_acquire);
  for (int r = 0; r < size_; ++r) {
    const Seat& seat = seats_[static_cast<size_t>(r)];
    if (seat.begun.load(std::memory_order_acquire) != first || seat.done.load(std::memory_order_acquire) != first)
      return true;
  }
  return false;
}

void ThreadMeetings::mend() noexcept {
  for (int r = 0; r < size_; ++r) {
    Seat& seat = seats_[static_cast<size_t>(r)];
    seat.updates = 0;
    seat.begun.store(0, std::memory_order_release);
    seat.done.store(0, std::memory_order_release);
  }
}

}  // namespace gradring
