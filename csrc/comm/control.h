// A group's control block: its memory, and the functions that read and write it outside of rounds. protocol.h has the table of its
// other atomics.
//
// | variable       | writer   | readers  | order            | why                                            |
// |----------------|----------|----------|------------------|------------------------------------------------|
// | a note's words | its rank | who asks | release, acquire | a reader of a new word sees that `told` is odd |
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "comm/protocol.h"
#include "gradring/export.h"
#include "runtime/arena.h"

namespace gradring {

// Why a group failed. Every rank that learns of the failure reads the same words.
struct Failure {
  enum class Reason : uint8_t { kNone, kExited, kClosed, kThreadEnded, kStalled, kMismatch, kLeft, kMemory, kLost };
  Reason reason = Reason::kNone;
  int rank = 0;           // the rank at fault, or for a mismatch the rank that found it
  uint32_t sequence = 0;  // the number of the operation, from 1
  bool told = false;      // the rank at fault has written its stack to its note since this wait asked for it

  uint64_t packed() const noexcept {
    return static_cast<uint64_t>(reason) << 56 | static_cast<uint64_t>(told) << 48 |
           static_cast<uint64_t>(static_cast<uint16_t>(rank)) << 32 | sequence;
  }
  static Failure unpack(uint64_t word) noexcept {
    return {static_cast<Reason>(word >> 56), static_cast<int>(word >> 32 & 0xffff), static_cast<uint32_t>(word),
            (word >> 48 & 1) != 0};
  }
};

class ControlBlock {
 public:
  // Makes a sealed memory file with a block for `ranks` ranks, all of it allocated. stage_bytes 0: the default. Throws
  // Error.
  GRADRING_API static int create(int ranks, size_t stage_bytes);

  // Opens a block that create() or format() made. Throws Error if the memory is no such block, or is for other ranks.
  static std::shared_ptr<ControlBlock> attach(int fd, int ranks, uint64_t generation);
  // A block in memory that `owner` keeps alive.
  static std::shared_ptr<ControlBlock> at(std::byte* memory, std::shared_ptr<void> owner, int ranks,
                                          uint64_t generation);
  static void format(std::byte* memory, int ranks, size_t stage_bytes) noexcept;

  ~ControlBlock();
  ControlBlock(const ControlBlock&) = delete;
  ControlBlock& operator=(const ControlBlock&) = delete;

  int ranks() const noexcept { return ranks_; }
  size_t stage_bytes() const noexcept { return stage_bytes_; }
  Header& header() noexcept { return *reinterpret_cast<Header*>(memory_); }
  RankState& state(int rank) noexcept { return *reinterpret_cast<RankState*>(memory_ + layout_.state(rank)); }
  Cell& cell(int rank, uint32_t round) noexcept {
    return *reinterpret_cast<Cell*>(memory_ + layout_.cell(rank, round));
  }
  Cell& doorbell(int rank) noexcept { return *reinterpret_cast<Cell*>(memory_ + layout_.doorbell(rank)); }
  Mailbox& mailbox(int from, int to) noexcept {
    return *reinterpret_cast<Mailbox*>(memory_ + layout_.mailbox(from, to));
  }
  std::atomic<uint64_t>* note(int rank) noexcept {  // kNoteBytes of text
    return reinterpret_cast<std::atomic<uint64_t>*>(memory_ + layout_.note(rank));
  }
  std::byte* stage(int rank, uint32_t turn) noexcept { return memory_ + layout_.stage(rank, turn); }

  // Sets the group's failure unless it has one. Returns the one that stands: `mine`, or an earlier one.
  Failure fail(const Failure& mine) noexcept;
  Failure failure() noexcept { return Failure::unpack(header().failure.load(std::memory_order_acquire)); }

 private:
  ControlBlock(std::byte* memory, std::shared_ptr<void> owner, int ranks, uint64_t generation);

  std::shared_ptr<void> owner_;
  std::byte* memory_;
  int ranks_;
  size_t stage_bytes_;
  BlockLayout layout_;
  uint64_t forks_;  // a forked child has a copy of this object, but is no user of the block
};

}  // namespace gradring
