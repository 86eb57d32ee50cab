#include "comm/hybrid_meeting.h"

#include <string>
#include <utility>

#include "runtime/failpoint.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// The value of a signal: the number of a meeting, whether it took place, and whether the writer has left since.
constexpr uint32_t kNumberMask = Signal::kValueMask >> 2, kMet = 2, kLeft = 1;
constexpr size_t kPlaceBytes = 64;  // a cache line for each rank, in each half

// Whether a writer that has come to `there` meetings has come to number `number`; numbers wrap around.
constexpr bool reached(uint32_t there, uint32_t number) noexcept {
  return ((there - number) & kNumberMask) < (1u << 28);
}

// Waits until the signal's writer has come to a meeting. Returns whether it took place; false if the writer has left before.
bool await(Signal& signal, uint32_t number) noexcept {
  for (;;) {
    const uint32_t now = signal.value();
    if (reached(now >> 2, number)) return (now & kMet) != 0;
    if (now & kLeft) return false;
    signal.wait_change(now);
  }
}

}  // namespace

struct alignas(64) HybridMeetings::Seat final : Meeting {
  Signal progress;
  // Only the replica itself uses these.
  HybridMeetings* all = nullptr;
  int replica = 0;
  uint32_t number = 0;  // how many meetings the replica has come to
  Decision settled = Decision::kOpen;
  bool complete = false;

  bool leads() const noexcept { return replica == 0; }
  int rank() const noexcept override { return all->processes_->rank() * all->replicas_ + replica; }
  int size() const noexcept override { return all->processes_->size() * all->replicas_; }

  // Comes to a meeting, and waits for its end. Returns whether it took place.
  bool come(bool ends) noexcept {
    number = (number + 1) & kNumberMask;
    progress.publish(number << 2 | kMet);
    settled = Decision::kOpen;
    return leads() ? all->lead(number, ends) : await(all->told_, number);
  }

  bool meet(const Brought& mine) noexcept override {
    if (!leads()) failpoint("before meeting", rank());  // the leader passes those of its own meeting
    all->place(all->half_, rank()) = mine;
    return complete = come(false);
  }
  bool took_place() const noexcept override { return complete; }
  int64_t rows() const noexcept override { return all->processes_->rows(); }

  const Brought& of(int rank) const noexcept override {
    return all->place(all->halves_[static_cast<size_t>(rank / all->replicas_)], rank);
  }

  Decision settle(bool commit) noexcept override {
    if (leads()) return settled = all->processes_->settle(commit);
    failpoint("before settle", rank());
    settled = all->processes_->decide(all->meeting_, commit ? Decision::kCommit : Decision::kAbort);
    if (settled == Decision::kCommit) all->processes_->mark_begun(all->update_, rank());
    failpoint("after settle", rank());
    return settled;
  }
  Decision decision() const noexcept override { return settled; }

  bool finish() noexcept override {
    if (!leads()) failpoint("before done", rank());
    return come(true);
  }
};

std::shared_ptr<HybridMeetings> HybridMeetings::make(std::shared_ptr<RankMeeting> processes, int replicas,
                                                     Waiter* waiter, Code* code) {
  static_assert(sizeof(Brought) <= kPlaceBytes);
  const int64_t ranks = int64_t{replicas} * processes->size();
  if (replicas < 1 || ranks > kMostRanks) {
    throw Error(Code::kInvalidArgument, "[meeting] there are " + std::to_string(processes->size()) +
                                            " processes with " + std::to_string(replicas) +
                                            " replicas each: must be 1 to " + std::to_string(kMostRanks) + " in all");
  }
  auto region = processes->group().share({2 * kPlaceBytes * static_cast<size_t>(ranks)}, waiter, code);
  if (!region) return nullptr;
  return std::shared_ptr<HybridMeetings>(new HybridMeetings(std::move(processes), std::move(region), replicas));
}

HybridMeetings::HybridMeetings(std::shared_ptr<RankMeeting> processes, std::shared_ptr<SharedRegion> region,
                               int replicas)
    : processes_(std::move(processes)),
      region_(std::move(region)),
      replicas_(replicas),
      seats_(std::make_unique<Seat[]>(static_cast<size_t>(replicas))),
      halves_(static_cast<size_t>(processes_->size())) {
  for (int r = 0; r < replicas; ++r) {
    seats_[static_cast<size_t>(r)].all = this;
    seats_[static_cast<size_t>(r)].replica = r;
  }
  processes_->set_replicas(replicas);
}

HybridMeetings::~HybridMeetings() = default;

Meeting& HybridMeetings::of(int replica) noexcept { return seats_[static_cast<size_t>(replica)]; }

Brought& HybridMeetings::place(unsigned half, int rank) const noexcept {
  const auto at =
      static_cast<size_t>(half) * static_cast<size_t>(processes_->size() * replicas_) + static_cast<size_t>(rank);
  return *reinterpret_cast<Brought*>(region_->at(0) + at * kPlaceBytes);
}

void HybridMeetings::enter() noexcept {
  uint32_t number = seats_[0].number;
  for (int r = 1; r < replicas_; ++r) {
    const uint32_t other = seats_[static_cast<size_t>(r)].number;
    if (reached(other, number)) number = other;
  }
  for (int r = 0; r < replicas_; ++r) {
    seats_[static_cast<size_t>(r)].number = number;
    seats_[static_cast<size_t>(r)].progress.publish(number << 2);
  }
  told_.publish(number << 2);
}

// What the replica has published stays: another one may not have read it yet.
void HybridMeetings::leave(int replica) noexcept {
  Signal& progress = seats_[static_cast<size_t>(replica)].progress;
  progress.publish(progress.value() | kLeft);
  if (replica == 0) told_.publish(told_.value() | kLeft);
}

// The leader's part of a meeting: that of a step, or the one that ends an update. Returns whether it took place.
bool HybridMeetings::lead(uint32_t number, bool ends) noexcept {
  for (int r = 1; r < replicas_; ++r)
    if (!await(seats_[static_cast<size_t>(r)].progress, number)) return false;  // the others hear of it by `leave`
  bool met = false;
  if (ends) {
    met = processes_->finish();
  } else {
    Brought own;  // the numbers themselves lie in the places
    const int first = seats_[0].rank();
    for (int r = 0; r < replicas_ && own.fault == 0; ++r) own.fault = place(half_, first + r).fault;
    own.correct = half_;
    met = processes_->meet(own);
    for (int p = 0; p < processes_->size() && met; ++p)
      halves_[static_cast<size_t>(p)] = static_cast<unsigned>(processes_->of(p).correct & 1);
    seats_[0].settled = processes_->decision();
    half_ ^= 1;
    meeting_ = processes_->number();
    update_ = processes_->next_update();
  }
  told_.publish(number << 2 | (met ? kMet : 0));
  return met;
}

}  // namespace gradring
