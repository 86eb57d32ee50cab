// The meetings of the ranks of a data-parallel training, which are processes (or threads that each have a group of their own).
//
// A meeting is a round of the group (comm/rounds.h): what a rank brings fills the cell's 48 bytes, and a death or a stalled rank
// ends the wait. The words that decide lie in a region that all ranks map.
//
// | variable       | writer                | readers | order             | why                                        |
// |----------------|-----------------------|---------|-------------------|--------------------------------------------|
// | Words::decision| settle, give up (CAS) | settle  | acq_rel, acquire  | one outcome for each meeting               |
// | Seat::begun    | that rank, also its   | torn    | release, acquire  | set before the rank's first write          |
// |                | replicas              |         |                   |                                            |
// | Seat::done     | that rank             | torn    | release, acquire  | set after the rank's last write            |
//
// The decision is one word, the number of the meeting and its outcome, as in comm/thread_meeting.h: the first rank that gets there
// replaces an older number by compare-and-swap. A rank that stops waiting, because another one has died or stalled, first sets
// the word to abort. If it finds that a rank has committed, then all ranks had come, so it reads what they brought and takes
// part in the update. csrc/comm/models/commit.pml checks every interleaving of this.
//
// Ranks also meet outside of steps: to stop, to add up an evaluation, around a save. The purpose travels with the numbers, so a
// rank that evaluates while others train is told from one that is late.
//
// A rank may be a process with several replicas, which are threads: comm/hybrid_meeting.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/group.h"
#include "gradring/export.h"
#include "runtime/arena.h"
#include "runtime/meeting.h"
#include "runtime/rank_steps.h"

namespace gradring {

class RankMeeting final : public Meeting, public RankSteps {
 public:
  // kStep and kFinish are those of training steps. Callers number all other purposes from kFirstOther on; below 16.
  static constexpr uint32_t kStep = 0, kFinish = 1, kFirstOther = 2;
  enum class Outcome : uint8_t { kMet, kEnded, kStopped, kDifferent, kFailed };

  // All ranks of the group call it. Throws Error(kOutOfMemory); null if `code` is not kOk.
  GRADRING_API static std::shared_ptr<RankMeeting> make(std::shared_ptr<Group> group, Waiter* waiter, Code* code);
  // If the parameters are still in use, moves them to private memory: in shared memory, a write would also change the
  // other ranks' parameters, and no meeting would tell those ranks of it.
  ~RankMeeting() override;
  RankMeeting(const RankMeeting&) = delete;
  RankMeeting& operator=(const RankMeeting&) = delete;

  Group& group() noexcept { return *group_; }
  // Later meetings wait with this waiter, or without one if it is null.
  void set_waiter(Waiter* waiter) noexcept { waiter_ = waiter; }

  // A meeting outside of a step. `reason` travels in place of a fault: below 256.
  GRADRING_API Outcome meet_for(uint32_t purpose, const Brought& mine, int64_t rows, uint32_t reason = 0) noexcept;
  // Tells the other ranks that this rank stops, in any kind of meeting.
  GRADRING_API Outcome stop(uint32_t reason) noexcept;

  Outcome outcome() const noexcept { return outcome_; }
  // Returns the rank that stopped, the rank that met for another purpose, or the first rank with a fault; -1 if there is none.
  int culprit() const noexcept { return culprit_; }
  uint32_t purpose_of(int rank) const noexcept { return purposes_[static_cast<size_t>(rank)]; }
  int64_t rows_of(int rank) const noexcept { return rows_of_[static_cast<size_t>(rank)]; }
  Code code() const noexcept { return code_; }  // of kFailed

  // Parameters that other processes may still reach after a failure count as torn.
  bool torn() const noexcept { return withdrawn_ || judged_ ? torn_ || (withdrawn_ && !arenas_.empty()) : torn_now(); }
  // This rank's parameters were replaced as a whole. All ranks call it between two meetings.
  GRADRING_API void mend() noexcept;

  // withdraw moves these arenas to private memory, after it has seen whether the parameters are torn. Call it after a failure. An
  // arena for which there is no memory stays held: the parameters then count as torn, and mend tries again.
  void hold(const std::shared_ptr<SharedArena>& arena) { arenas_.push_back(arena); }
  void hold_parameters(const std::shared_ptr<SharedArena>& arena) { hold(arena), parameters_ = arena; }
  GRADRING_API void withdraw() noexcept;
  bool withdrawn() const noexcept { return withdrawn_; }

  int rank() const noexcept override { return group_->rank(); }
  int size() const noexcept override { return group_->size(); }
  bool meet(const Brought& mine) noexcept override;
  bool took_place() const noexcept override { return complete_; }
  const Brought& of(int rank) const noexcept override { return brought_[static_cast<size_t>(rank)]; }
  Decision settle(bool commit) noexcept override;
  Decision decision() const noexcept override { return settled_; }
  bool finish() noexcept override;

  void bring(int64_t rows, bool ended) noexcept override { my_rows_ = rows, my_end_ = ended; }
  int64_t rows() const noexcept override { return rows_; }
  bool all_ended() const noexcept override { return outcome_ == Outcome::kEnded; }

  // For replicas of this rank. After a meeting the rank tells them these two numbers. By the first one they settle the meeting,
  // on their own threads; by the second one they begin the update.
  uint32_t number() const noexcept { return number_; }
  Decision decide(uint32_t number, Decision wish) noexcept;
  uint64_t next_update() const noexcept { return settled_ == Decision::kCommit ? updates_ : updates_ + 1; }
  void mark_begun(uint64_t update, int failpoint_rank) noexcept;
  // Failpoints know a rank with replicas by the number of its first replica among those of all ranks.
  void set_replicas(int replicas) noexcept { failpoint_rank_ = rank() * replicas; }

 private:
  struct Words;
  struct Sent;

  RankMeeting(std::shared_ptr<Group> group, std::shared_ptr<SharedRegion> region);
  Words& words() const noexcept;
  GRADRING_API bool torn_now() const noexcept;
  Outcome exchange(uint32_t purpose, const Brought& mine, int64_t rows, uint32_t flags) noexcept;
  void take(const Sent* all) noexcept;
  void begin_update() noexcept { mark_begun(++updates_, failpoint_rank_); }
  void make_private() noexcept;

  std::shared_ptr<Group> group_;
  std::shared_ptr<SharedRegion> region_;
  std::vector<std::shared_ptr<SharedArena>> arenas_;
  std::shared_ptr<SharedArena> parameters_;  // one of them
  std::vector<std::byte> cells_;
  std::vector<Brought> brought_;
  std::vector<uint32_t> purposes_;
  std::vector<int64_t> rows_of_;
  Waiter* waiter_ = nullptr;
  uint32_t number_ = 0;  // of the meeting: the group's operation, from 1
  uint64_t updates_ = 0;
  Outcome outcome_ = Outcome::kMet;
  Code code_ = Code::kOk;
  int culprit_ = -1, failpoint_rank_;
  int64_t rows_ = 0, my_rows_ = 0;
  bool my_end_ = false;
  Decision settled_ = Decision::kOpen;
  bool complete_ = false, withdrawn_ = false;
  bool torn_ = false, judged_ = false;  // judged: torn_ was settled at the end of the last update
};

}  // namespace gradring
