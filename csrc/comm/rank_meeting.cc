#include "comm/rank_meeting.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "runtime/failpoint.h"

namespace gradring {

// The contents of a cell: the numbers, and one word that holds the fault or reason, the purpose, flags and the rank's rows.
struct RankMeeting::Sent {
  double loss_sum, loss_weight, largest, squares;
  int64_t correct;
  uint64_t word;

  static constexpr uint32_t kEnded = 1, kStops = 2;

  static uint64_t pack(uint32_t fault, uint32_t purpose, uint32_t flags, int64_t rows) noexcept {
    return static_cast<uint64_t>(rows) << 16 | flags << 12 | purpose << 8 | fault;
  }
  uint32_t fault() const noexcept { return static_cast<uint32_t>(word & 255); }
  uint32_t purpose() const noexcept { return static_cast<uint32_t>(word >> 8 & 15); }
  uint32_t flags() const noexcept { return static_cast<uint32_t>(word >> 12 & 15); }
  int64_t rows() const noexcept { return static_cast<int64_t>(word >> 16); }
};

struct RankMeeting::Words {
  struct alignas(128) Seat {
    std::atomic<uint64_t> begun, done;
  };
  alignas(128) std::atomic<uint64_t> decision;
  Seat seats[kMostRanks];
};

std::shared_ptr<RankMeeting> RankMeeting::make(std::shared_ptr<Group> group, Waiter* waiter, Code* code) {
  static_assert(sizeof(Sent) == kInlineBytes);
  auto region = group->share({sizeof(Words)}, waiter, code);
  if (!region) return nullptr;
  return std::shared_ptr<RankMeeting>(new RankMeeting(std::move(group), std::move(region)));
}

RankMeeting::RankMeeting(std::shared_ptr<Group> group, std::shared_ptr<SharedRegion> region)
    : group_(std::move(group)), region_(std::move(region)), failpoint_rank_(group_->rank()) {
  const auto ranks = static_cast<size_t>(group_->size());
  cells_.resize(ranks * kInlineBytes);
  brought_.resize(ranks);
  purposes_.resize(ranks);
  rows_of_.resize(ranks);
}

RankMeeting::~RankMeeting() {
  arenas_.clear();
  if (parameters_.use_count() > 1) (void)parameters_->make_private();  // without memory they stay common to the ranks
}

RankMeeting::Words& RankMeeting::words() const noexcept { return *reinterpret_cast<Words*>(region_->at(0)); }

void RankMeeting::take(const Sent* all) noexcept {
  for (size_t r = 0; r < brought_.size(); ++r) {
    const Sent& sent = all[r];
    brought_[r] = {sent.loss_sum, sent.loss_weight, sent.largest, sent.squares, sent.correct, sent.fault()};
    purposes_[r] = sent.purpose();
    rows_of_[r] = sent.rows();
  }
}

RankMeeting::Outcome RankMeeting::exchange(uint32_t purpose, const Brought& mine, int64_t rows,
                                           uint32_t flags) noexcept {
  const Sent sent{mine.loss_sum, mine.loss_weight, mine.largest,
                  mine.squares,  mine.correct,     Sent::pack(mine.fault & 255, purpose & 15, flags, rows)};
  culprit_ = -1;
  number_ = 0;
  code_ = group_->meet(reinterpret_cast<const std::byte*>(&sent), cells_.data(), &number_, waiter_);
  if (code_ != Code::kOk) return outcome_ = Outcome::kFailed;
  Sent all[kMostRanks];
  std::memcpy(all, cells_.data(), cells_.size());
  take(all);
  outcome_ = Outcome::kMet;
  bool ended = true;
  const int count = size();
  for (int r = count - 1; r >= 0; --r) {
    ended = ended && (all[r].flags() & Sent::kEnded) != 0;
    if (purpose != all[r].purpose() && outcome_ == Outcome::kMet) outcome_ = Outcome::kDifferent, culprit_ = r;
  }
  for (int r = count - 1; r >= 0; --r)
    if (all[r].flags() & Sent::kStops) outcome_ = Outcome::kStopped, culprit_ = r;
  if (outcome_ == Outcome::kMet && ended) outcome_ = Outcome::kEnded;
  if (outcome_ != Outcome::kMet) return outcome_;
  for (int r = count - 1; r >= 0; --r)
    if (all[r].fault() != 0) culprit_ = r;
  return outcome_;
}

RankMeeting::Outcome RankMeeting::meet_for(uint32_t purpose, const Brought& mine, int64_t rows,
                                           uint32_t reason) noexcept {
  Brought sent = mine;
  sent.fault = reason;
  return exchange(purpose, sent, rows, 0);
}

RankMeeting::Outcome RankMeeting::stop(uint32_t reason) noexcept {
  Brought mine;
  mine.fault = reason;
  return exchange(kStep, mine, 0, Sent::kStops);
}

bool RankMeeting::meet(const Brought& mine) noexcept {
  failpoint("before meeting", failpoint_rank_);
  settled_ = Decision::kOpen;
  exchange(kStep, mine, my_rows_, my_end_ ? Sent::kEnded : 0);
  complete_ = outcome_ == Outcome::kMet;
  if (outcome_ == Outcome::kFailed && number_ != 0) {  // a rank without a number has not joined, so no rank commits
    // Settle on abort, so that no rank can commit after this one has given up. A rank that committed earlier wins.
    failpoint("gives up", failpoint_rank_);
    settled_ = decide(number_, Decision::kAbort);
    complete_ = settled_ == Decision::kCommit;
    if (complete_) {
      Sent all[kMostRanks];
      group_->gathered(reinterpret_cast<std::byte*>(all));
      take(all);
      begin_update();
    }
  }
  if (complete_) {
    rows_ = 0;
    for (const int64_t rows : rows_of_) rows_ += rows;
  }
  return complete_;
}

Decision RankMeeting::decide(uint32_t number, Decision wish) noexcept {
  const uint64_t wanted = uint64_t{number} << 2 | static_cast<uint64_t>(wish);
  std::atomic<uint64_t>& decision = words().decision;
  uint64_t seen = decision.load(std::memory_order_acquire);
  while (seen >> 2 != number) {
    if (decision.compare_exchange_weak(seen, wanted, std::memory_order_acq_rel, std::memory_order_acquire)) return wish;
  }
  return static_cast<Decision>(seen & 3);
}

Decision RankMeeting::settle(bool commit) noexcept {
  failpoint("before settle", failpoint_rank_);
  if (settled_ == Decision::kOpen) {
    settled_ = decide(number_, commit ? Decision::kCommit : Decision::kAbort);
    if (settled_ == Decision::kCommit) begin_update();
    // Another rank has given up since this one came: the group has failed, and a further meeting says how.
    if (commit && settled_ == Decision::kAbort) exchange(kFinish, {}, 0, 0);
  }
  failpoint("after settle", failpoint_rank_);
  return settled_;
}

void RankMeeting::mark_begun(uint64_t update, int failpoint_rank) noexcept {
  words().seats[rank()].begun.store(update, std::memory_order_release);
  begin_failpoints_of_update(failpoint_rank);
}

bool RankMeeting::finish() noexcept {
  failpoint("before done", failpoint_rank_);
  words().seats[rank()].done.store(updates_, std::memory_order_release);
  failpoint("after done", failpoint_rank_);
  settled_ = Decision::kOpen;
  if (exchange(kFinish, {}, 0, 0) == Outcome::kMet) return true;
  // A rank has failed after the decision. If all parts are done, then so is the update, and it counts; else some ranks have written
  // their parts and others have not.
  torn_ = torn_now();
  judged_ = true;
  return !torn_;
}

bool RankMeeting::torn_now() const noexcept {
  const Words::Seat* const seats = words().seats;
  const uint64_t first = seats[0].begun.load(std::memory_order_acquire);
  for (int r = 0; r < size(); ++r) {
    if (seats[r].begun.load(std::memory_order_acquire) != first ||
        seats[r].done.load(std::memory_order_acquire) != first)
      return true;
  }
  return false;
}

void RankMeeting::mend() noexcept {
  torn_ = judged_ = false;
  if (withdrawn_) return make_private();
  updates_ = 0;
  words().seats[rank()].begun.store(0, std::memory_order_release);
  words().seats[rank()].done.store(0, std::memory_order_release);
}

void RankMeeting::withdraw() noexcept {
  if (withdrawn_) return;
  if (!judged_) torn_ = torn_now();
  withdrawn_ = true;
  make_private();
}

void RankMeeting::make_private() noexcept {
  const auto done = [](const std::shared_ptr<SharedArena>& arena) { return arena->make_private(); };
  arenas_.erase(std::remove_if(arenas_.begin(), arenas_.end(), done), arenas_.end());
  if (arenas_.empty()) parameters_.reset();
}

}  // namespace gradring
