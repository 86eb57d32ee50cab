// Ring: cells that producers fill in place and one consumer takes in order.
//
// | variable         | writer          | readers | order                 | why                                     |
// |------------------|-----------------|---------|-----------------------|-----------------------------------------|
// | Cell::word, turn | commit, discard | await   | CAS acq_rel / acquire | the contents are visible before "full"  |
// | Cell::word, turn | release, allow  | reserve | CAS acq_rel / acquire | the consumer's reads end before "free"  |
// | Cell::word, bits | a waiter, close | advance | CAS or RMW acq_rel    | one word: no wake is lost               |
// |                  |                 | sleeper | relaxed               | a hint                                  |
// | Cell::word       | open            | all     | store relaxed         | no producer runs; a close may come too  |
// | Control::claimed | claim           | claim   | RMW relaxed           | unique is enough; reserve does the rest |
// | Control::claimed | open, recover   | claim   | store release         | no producer runs at that time           |
//
// Tickets 0, 1, 2, ... are handed out in the order of consumption. Ticket t lives in cell t % cells, on lap
// t / cells of that cell. A cell's word counts turns: 2 * lap says "free for that lap", 2 * lap + 1 says "full". So a
// producer waits for its own turn and the consumer for its own, and no thread compares two counters. Turns may wrap at the width
// of Index, because a cell cannot run a whole cycle ahead of a thread that waits for it.
//
//   producer:  t = claim();  reserve(t);  fill the slot of t;  commit(t) or discard(t)
//   consumer:  await(t);     read the slot of t;               release(t);  ++t
//
// release(t) allows the ticket that comes to this cell next, t + cells. A consumer that wants fewer tickets ahead than
// there are cells opens the ring with that many free, and allows each further ticket when it wants it.
//
// A producer that holds a ticket must commit or discard it. Threads can be trusted to do so, and share one ring and its counter.
// A process may be killed between any two instructions, so each worker process is the only producer of a ring of its own (a
// stripe). A killed process leaves at most one uncommitted ticket behind, which recover() gives to its successor, and the other
// stripes are not affected. Every change of a cell is one compare-and-swap, so a kill never leaves a cell half changed.
//
// Its ancestors: Vyukov's bounded queue, whose cells carry sequence numbers, in the form of rigtorp's MPMCQueue, which
// counts two turns per lap; folly's TurnSequencer, whose waiters sleep on the word of a turn, and where that word also says that
// a thread sleeps; and Linux's BPF ring buffer, whose producers reserve, fill in place, and commit or discard.
//
// A ring is a view: its control block and cells may lie in memory shared between processes.
// The protocol is checked exhaustively by models/ring.pml and models/stripe.pml.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "runtime/wait.h"

namespace gradring {

enum class RingWait : uint8_t {
  kReady,      // it is the caller's turn
  kDiscarded,  // it is the consumer's turn, but the producer gave this ticket up
  kClosed,
  kTimeout,
};

// Index is the type that counts the turns of a cell. Tests use a narrow one, so that it wraps often.
template <class Index = uint32_t>
class Ring {
  static_assert(std::is_unsigned_v<Index> && sizeof(Index) <= 4);

 public:
  // A waiting consumer spins for a few microseconds, then yields, then sleeps. A producer that waits for space sleeps almost at
  // once. With a tenth of the yields, a consumer that gets a batch every 200 us uses a third of the CPU time (ring_bench), but one
  // that gets a batch every 20 us loses a quarter of its speed, because every sleep costs 10 us.
  static constexpr Patience kConsumer{200, 200};
  static constexpr Patience kProducer{50, 0};

  Ring() noexcept = default;
  // `memory` is 64-byte aligned and bytes(cells) long. One of the rings over it must call format before any is used.
  Ring(void* memory, uint32_t cells, Scope scope) noexcept
      : control_(static_cast<Control*>(memory)),
        cells_(reinterpret_cast<Cell*>(static_cast<std::byte*>(memory) + sizeof(Control))),
        count_(cells),
        scope_(scope) {}

  static constexpr size_t bytes(uint32_t cells) noexcept { return sizeof(Control) + cells * sizeof(Cell); }

  uint32_t cells() const noexcept { return count_; }
  uint32_t slot(uint64_t ticket) const noexcept { return static_cast<uint32_t>(ticket % count_); }

  // Constructs the ring in its memory. Call it once, before any producer or consumer uses the ring.
  void format() noexcept {
    new (control_) Control;
    for (uint32_t i = 0; i < count_; ++i) new (&cells_[i]) Cell;
    open();
  }

  // Makes `first` the next ticket, and allows as many tickets as there are cells. No producer may use the ring during the call;
  // what tells producers to start later must also publish the ring to them. A close at the same time may be lost, so the caller
  // must check afterwards whether the ring should be closed.
  void open(uint64_t first = 0) noexcept { open(first, count_); }
  // Does the same, but allows only the tickets below first + `allowed`. `allowed` is at most the number of cells.
  void open(uint64_t first, uint32_t allowed) noexcept {
    for (uint64_t ticket = first; ticket < first + count_; ++ticket) {
      const uint32_t turn = ticket < first + allowed ? free_turn(ticket) : (free_turn(ticket) - 1) & kTurns;
      cell(ticket).word.store(pack(turn, 0), std::memory_order_relaxed);
    }
    control_->claimed.store(first, std::memory_order_release);
  }

  // Prepares the ring for a successor of its only producer, which has died: the successor starts at the first ticket, from the
  // consumer's `next` on, that was not committed. Call it only after the system has confirmed the death.
  uint64_t recover(uint64_t next) noexcept {
    uint64_t ticket = next;
    while (ticket < next + count_ && full(ticket)) ++ticket;
    control_->claimed.store(ticket, std::memory_order_release);
    return ticket;
  }

  // Ends all waits, now and later. Cells that are full can still be taken.
  void close() noexcept {
    for (uint32_t i = 0; i < count_; ++i) {
      const uint32_t old = cells_[i].word.fetch_or(kClosedBit, std::memory_order_acq_rel);
      if (old & kSleeperBit) futex_wake_all(cells_[i].word, scope_);
    }
  }

  bool closed() const noexcept { return cells_[0].word.load(std::memory_order_acquire) & kClosedBit; }

  // ---- producers

  uint64_t claim() noexcept { return control_->claimed.fetch_add(1, std::memory_order_relaxed); }
  // Claims the next ticket if it is below `end` and its slot may be written now, so that the caller need not reserve it.
  bool claim_if_free(uint64_t end, uint64_t* ticket) noexcept {
    uint64_t next = control_->claimed.load(std::memory_order_relaxed);
    RingWait answer;
    do {
      const uint32_t word = next < end ? cell(next).word.load(std::memory_order_acquire) : 0;
      if (next >= end || !look(word, free_turn(next), &answer) || answer != RingWait::kReady) return false;
      // The slot stays free between this look and the claim, because only the thread that claims the ticket may fill it.
    } while (!control_->claimed.compare_exchange_weak(next, next + 1, std::memory_order_relaxed));
    *ticket = next;
    return true;
  }
  // Claims this ticket if it is the next one.
  bool claim_this(uint64_t ticket) noexcept {
    return control_->claimed.compare_exchange_strong(ticket, ticket + 1, std::memory_order_relaxed);
  }
  uint64_t claimed() const noexcept { return control_->claimed.load(std::memory_order_acquire); }

  // Waits until the ticket's slot may be written.
  RingWait reserve(uint64_t ticket, Deadline deadline = kNoDeadline, Patience patience = kProducer) noexcept {
    return wait(ticket, free_turn(ticket), deadline, patience);
  }
  // Publishes what was written to the slot.
  void commit(uint64_t ticket) noexcept { advance(ticket, full_turn(ticket), 0); }
  // Gives the ticket up: the consumer passes over it.
  void discard(uint64_t ticket) noexcept { advance(ticket, full_turn(ticket), kDiscardedBit); }

  // ---- the consumer

  RingWait await(uint64_t ticket, Deadline deadline = kNoDeadline, Patience patience = kConsumer) noexcept {
    return wait(ticket, full_turn(ticket), deadline, patience);
  }
  bool full(uint64_t ticket) const noexcept {
    return turn_of(cell(ticket).word.load(std::memory_order_acquire)) == full_turn(ticket);
  }
  // The slot may be written again, for ticket + cells.
  void release(uint64_t ticket) noexcept { allow(ticket + count_); }
  // Lets a producer fill the ticket's slot. Call it once per ticket, in order, after the last ticket of the cell was taken.
  void allow(uint64_t ticket) noexcept { advance(ticket, free_turn(ticket), 0); }
  // Whether a producer slept a moment ago until this ticket is allowed. Allowing it then takes a system call.
  bool sleeper(uint64_t ticket) const noexcept {
    return cell(ticket).word.load(std::memory_order_relaxed) & kSleeperBit;
  }

 private:
  struct alignas(64) Control {
    std::atomic<uint64_t> claimed{0};
  };
  struct alignas(64) Cell {
    std::atomic<uint32_t> word{0};
  };
  static_assert(std::atomic<uint64_t>::is_always_lock_free);

  static constexpr uint32_t kSleeperBit = 1;    // a thread sleeps on this word
  static constexpr uint32_t kClosedBit = 2;     // the ring is closed; stays set until open
  static constexpr uint32_t kDiscardedBit = 4;  // the producer of this full cell gave its ticket up
  static constexpr int kBits = 3;
  static constexpr uint32_t kTurns =
      (sizeof(Index) == 4 ? uint32_t{1} << (32 - kBits) : uint32_t{1} << 8 * sizeof(Index) % 32) - 1;

  static constexpr uint32_t pack(uint32_t turn, uint32_t bits) noexcept { return turn << kBits | bits; }
  static constexpr uint32_t turn_of(uint32_t word) noexcept { return word >> kBits; }
  uint32_t free_turn(uint64_t ticket) const noexcept { return static_cast<uint32_t>(2 * (ticket / count_)) & kTurns; }
  uint32_t full_turn(uint64_t ticket) const noexcept { return (free_turn(ticket) + 1) & kTurns; }
  Cell& cell(uint64_t ticket) const noexcept { return cells_[ticket % count_]; }

  // Only the party whose turn it is changes the turn, but the others may set bits at the same time, so this loops.
  void advance(uint64_t ticket, uint32_t turn, uint32_t bits) noexcept {
    std::atomic<uint32_t>& word = cell(ticket).word;
    uint32_t old = word.load(std::memory_order_relaxed);
    while (!word.compare_exchange_weak(old, pack(turn, bits | (old & kClosedBit)), std::memory_order_acq_rel,
                                       std::memory_order_relaxed)) {
    }
    if (old & kSleeperBit) futex_wake_all(word, scope_);
  }

  // True if the word answers the question; the answer is in *result.
  static bool look(uint32_t word, uint32_t turn, RingWait* result) noexcept {
    if (turn_of(word) == turn) {
      *result = word & kDiscardedBit ? RingWait::kDiscarded : RingWait::kReady;
      // A producer must not start to fill a slot that no consumer will take.
      if ((word & kClosedBit) && turn % 2 == 0) *result = RingWait::kClosed;
      return true;
    }
    *result = RingWait::kClosed;
    return word & kClosedBit;
  }

  RingWait wait(uint64_t ticket, uint32_t turn, Deadline deadline, Patience patience) noexcept {
    std::atomic<uint32_t>& word = cell(ticket).word;
    RingWait result;
    for (uint32_t spin = 0; spin <= patience.spins; ++spin) {
      if (look(word.load(std::memory_order_acquire), turn, &result)) return result;
      cpu_relax();
    }
    for (uint32_t turns = 0; turns < patience.yields; ++turns) {
      if (look(word.load(std::memory_order_acquire), turn, &result)) return result;
      sched_yield();
    }
    for (;;) {
      uint32_t seen = word.load(std::memory_order_acquire);
      if (look(seen, turn, &result)) return result;
      if (!(seen & kSleeperBit) && !word.compare_exchange_strong(seen, seen | kSleeperBit, std::memory_order_acq_rel,
                                                                 std::memory_order_acquire)) {
        continue;
      }
      if (!futex_wait(word, seen | kSleeperBit, deadline, scope_)) {
        return look(word.load(std::memory_order_acquire), turn, &result) ? result : RingWait::kTimeout;
      }
    }
  }

  Control* control_ = nullptr;
  Cell* cells_ = nullptr;
  uint32_t count_ = 0;
  Scope scope_ = Scope::kThreads;
};

}  // namespace gradring
