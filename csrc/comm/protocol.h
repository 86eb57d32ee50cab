// The words that ranks of a group share: what lies in the group's control block, and who may write it when.
//
// Ranks meet in rounds, numbered from 1; each rank counts them by itself. In a round each rank publishes one cell and
// reads the cells of all others; a rank owns two cells and uses them in turn. A rank that publishes round r has read
// all cells of round r - 1, so its owner may reuse the cell of round r - 2 without asking: there is no acknowledgement,
// and one cache line moves each way. The same holds for the halves of staging memory, which alternate in the rounds
// that use them. (A pair of flags that alternate is the idea of sense-reversing barriers: Mellor-Crummey and Scott,
// 1991.)
//
// | variable                         | writer             | readers           | order                             | why                                                                     |
// |----------------------------------|--------------------|-------------------|-----------------------------------|-------------------------------------------------------------------------|
// | Cell::word                       | its rank           | the other ranks   | exchange acq_rel, load acquire    | the cell, and the operands that it tells of, are visible with the round |
// | Cell::word                       | a waiter (CAS)     | its rank          | acq_rel                           | sets the sleeper bit: the rank then wakes                               |
// | Cell::cpu                        | its rank           | the other ranks   | relaxed                           | a hint: whose core it is                                                |
// | RankState::presence              | its rank           | who waits for it  | release, CAS acq_rel, acquire     | an end comes after all that the rank did                                |
// | RankState::ended_ns              | its rank           | who waits for it  | release, acquire                  | is written before presence says that its thread ended                   |
// | RankState::activity              | its rank           | who waits for it  | release, acquire                  | is written after the patience that goes with it                         |
// | RankState::patience_until_ns     | its rank           | who waits for it  | release, acquire                  | until then the rank is not stalled                                      |
// | RankState::entered, entered_kind | its rank           | who waits for it  | relaxed                           | for messages alone                                                      |
// | RankState::questions             | its rank, who asks | both              | add and or acq_rel, acquire       | whether the rank can tell its Python stack, and how often it was asked  |
// | RankState::told                  | its rank           | who asks          | release, acquire, relaxed         | the note is written before it; the same value again: the note is whole  |
// | a note's words                   | its rank           | who asks          | release, acquire                  | a reader of a new word sees that `told` is odd                          |
// | Header::failure                  | who fails (CAS)    | everyone          | acq_rel, acquire                  | all ranks see the first failure                                         |
// | Header::generation               | first comer (CAS)  | who attaches      | acq_rel, acquire                  | words of another generation are refused                                 |
// | Header::users                    | who attaches       | the block's owner | acq_rel, acquire                  | the block is free at zero users                                         |
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "ops/combine/element.h"

namespace gradring {

inline constexpr int kMostRanks = 256;
inline constexpr size_t kInlineBytes = 48;

enum class Collective : uint8_t {
  kNone,
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kBarrier,
  kSend,
  kReceive,
  kSplit,
  kShare,    // makes memory that all ranks map
  kMeeting,  // the ranks of a trainer exchange 48 bytes each
};
inline constexpr const char* collective_name(Collective kind) noexcept {
  constexpr const char* names[] = {"nothing", "all_reduce", "reduce_scatter", "all_gather", "broadcast", "barrier",
                                   "send",    "recv",       "split",          "share",      "meeting"};
  const auto index = static_cast<unsigned>(kind);
  return index < sizeof names / sizeof *names ? names[index] : "an unknown operation";
}

// What must be equal on all ranks when they call an operation.
struct Agreement {
  Collective kind = Collective::kNone;
  Element element = Element::kFloat32;
  Reduction reduction = Reduction::kSum;
  uint8_t root = 0;  // the root of a broadcast
  bool weighted = false;
  uint64_t count = 0;  // elements, below 2^48

  bool operator==(const Agreement&) const noexcept = default;
};

// One cache line: the round, what is done in it, and 48 bytes of data or of where data lies.
struct alignas(64) Cell {
  std::atomic<uint32_t> word;  // round << 1 | a rank sleeps
  Collective kind;
  Element element;
  uint8_t reduction;  // the Reduction, and the bit kWeighted
  uint8_t root;
  uint32_t count_low;
  uint16_t count_high;
  std::atomic<uint16_t> cpu;
  std::byte payload[kInlineBytes];

  static constexpr uint8_t kWeighted = 0x80;

  void set(const Agreement& a) noexcept {
    kind = a.kind;
    element = a.element;
    reduction = static_cast<uint8_t>(static_cast<uint8_t>(a.reduction) | (a.weighted ? kWeighted : 0));
    root = a.root;
    count_low = static_cast<uint32_t>(a.count);
    count_high = static_cast<uint16_t>(a.count >> 32);
  }
  Agreement agreement() const noexcept {
    return {kind,
            element,
            static_cast<Reduction>(reduction & ~kWeighted),
            root,
            (reduction & kWeighted) != 0,
            static_cast<uint64_t>(count_high) << 32 | count_low};
  }
};
static_assert(sizeof(Cell) == 64);

// Where in its data segment a rank's operands lie, or kPrivate for those that lie elsewhere.
struct Placement {
  uint64_t in = kPrivate;  // offsets in the segment
  uint64_t out = kPrivate;
  double weight = 0;
  static constexpr uint64_t kPrivate = ~uint64_t{0};
};
static_assert(sizeof(Placement) <= kInlineBytes);

enum class Presence : uint32_t { kAbsent, kPresent, kThreadEnded, kClosed };
enum class Activity : uint32_t { kUnknown, kWaitingForData, kSaving, kInCallback, kComputing };
inline constexpr const char* activity_name(Activity activity) noexcept {
  constexpr const char* names[] = {"", "waiting for data", "saving", "in a callback", "computing"};
  const auto index = static_cast<unsigned>(activity);
  return index < sizeof names / sizeof *names ? names[index] : "";
}

// RankState::questions: the number of questions for the rank's Python stack, times kOneQuestion, and two bits. A rank that asks
// adds one, and the sum is the number of its question; an answer to a later question is newer, and serves too.
inline constexpr uint32_t kTells = 1, kTellsNoMore = 2, kOneQuestion = 4;
inline constexpr uint32_t kQuestionMask = ~uint32_t{0} / kOneQuestion;

struct alignas(64) RankState {
  std::atomic<Presence> presence;
  std::atomic<Activity> activity;
  std::atomic<int64_t> patience_until_ns;  // no peer may call the rank stalled before this time
  std::atomic<int64_t> ended_ns;           // when kThreadEnded was set
  std::atomic<uint32_t> entered;           // how many operations it has begun; relaxed, for messages
  std::atomic<Collective> entered_kind;    // the last operation that it has begun; relaxed, for messages
  std::atomic<uint32_t> questions;         // questions for the rank's stack; see kTells
  std::atomic<uint32_t> told;              // the question that its note answers, times 2; odd while it writes the note
};

// One direction between two ranks: the sender's cell and the receiver's acknowledgement, each with a round of its own.
struct Mailbox {
  Cell sent;
  Cell taken;
};

struct alignas(64) Header {
  uint64_t magic;
  uint32_t version;
  uint32_t ranks;
  uint64_t stage_bytes;                       // the size of each half of staging memory
  alignas(64) std::atomic<uint64_t> failure;  // 0, or Failure::packed()
  std::atomic<uint64_t> generation;           // the generation plus 1; 0: no rank has attached
  std::atomic<int32_t> users;
};

inline constexpr uint64_t kMagic = 0x31'67'6e'69'72'64'61'72;
inline constexpr uint32_t kVersion = 4;

inline constexpr size_t kNoteBytes = 2048;  // text of a rank's stack, with a zero byte at its end

// Offsets in a control block of `ranks` ranks. All are multiples of a cache line.
class BlockLayout {
 public:
  BlockLayout(int ranks, size_t stage_bytes) noexcept : ranks_(static_cast<size_t>(ranks)), stage_(stage_bytes) {}

  size_t state(int rank) const noexcept { return sizeof(Header) + index(rank) * sizeof(RankState); }
  size_t cell(int rank, uint32_t round) const noexcept {
    return cells() + (index(rank) * 2 + (round & 1)) * kCellSpacing;
  }
  size_t doorbell(int rank) const noexcept { return cells() + ranks_ * 2 * kCellSpacing + index(rank) * sizeof(Cell); }
  size_t mailbox(int from, int to) const noexcept {
    return doorbell(0) + ranks_ * sizeof(Cell) + (index(from) * ranks_ + index(to)) * sizeof(Mailbox);
  }
  size_t note(int rank) const noexcept {
    return mailbox(0, 0) + ranks_ * ranks_ * sizeof(Mailbox) + index(rank) * kNoteBytes;
  }
  // Two ranks share two halves: each writes next to the half that it has just read. More ranks have two halves each.
  size_t stage(int rank, uint32_t turn) const noexcept {
    const size_t begin = (note(0) + ranks_ * kNoteBytes + 4095) / 4096 * 4096;
    const size_t half = ranks_ == 2 ? (index(rank) + turn) & 1 : index(rank) * 2 + (turn & 1);
    return begin + half * stage_;
  }
  size_t bytes() const noexcept { return stage(0, 0) + (ranks_ == 2 ? 2 : ranks_ * 2) * stage_; }

 private:
  // Cores fetch cache lines in pairs. The spacing keeps the cell that a rank writes apart from the one that others
  // read.
  static constexpr size_t kCellSpacing = 2 * sizeof(Cell);
  size_t cells() const noexcept { return (state(0) + ranks_ * sizeof(RankState) + 127) / 128 * 128; }
  static size_t index(int rank) noexcept { return static_cast<size_t>(rank); }
  size_t ranks_;
  size_t stage_;
};

// The default size of a staging half, which stays in a core's own cache.
inline constexpr size_t default_stage_bytes(int ranks) noexcept {
  return ranks <= 8 ? size_t{256} << 10 : ranks <= 32 ? size_t{64} << 10 : size_t{16} << 10;
}

}  // namespace gradring
