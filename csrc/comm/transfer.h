// send and recv between two ranks, as state machines that advance step by step, so that one thread can run several at
// the same time.
//
// Each ordered pair of ranks has a mailbox: a cell of the sender and an acknowledgement of the receiver, with rounds of
// their own. A message of up to 48 bytes travels in the cell; one that lies in the sender's segment is read there; any other
// goes in pieces through two halves of staging memory in the sender's segment. The sender writes the cell only when the
// receiver has acknowledged everything before; for further pieces it publishes only the round's number.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/rounds.h"

namespace gradring {

// The state that a rank keeps of its mailboxes.
class Mailboxes {
 public:
  explicit Mailboxes(int ranks) : sent_(static_cast<size_t>(ranks)), received_(sent_.size()), stages_(sent_.size()) {}

  // Gives the staging memory back. No transfer may be under way.
  void free(OwnSegment& own) noexcept;

 private:
  friend class Transfer;
  // Two halves that stay shared when the arrays leave the segment. Null if they have left it. Throws Error.
  static std::byte* allocate(OwnSegment& own);
  std::vector<uint32_t> sent_;      // rounds published, by receiver
  std::vector<uint32_t> received_;  // rounds acknowledged, by sender
  std::vector<std::byte*> stages_;  // for each receiver, two halves of staging memory, or null before the first use
};

class Transfer {
 public:
  Transfer(const Call& call, const Operation& operation) noexcept : call_(&call), operation_(operation) {}

  // Does what is possible without waiting. Returns whether that was anything. Fails the group if the two sides differ.
  bool step(Rounds& rounds, Mailboxes& boxes) noexcept;
  bool done() const noexcept { return done_; }
  Code code() const noexcept { return code_; }
  void end(Code code) noexcept { code_ = code, done_ = true; }
  // For Rounds::await_bell. This must stay where it is while it is awaited.
  Awaited awaited() noexcept { return {call_->peer, &deadline_, &operation_}; }
  bool sends() const noexcept { return call_->agreement.kind == Collective::kSend; }
  // Whether two messages go the same way between the same ranks: they then go one after the other.
  bool same_way(const Transfer& other) const noexcept {
    return sends() == other.sends() && call_->peer == other.call_->peer;
  }

 private:
  bool step_send(Rounds& rounds, Mailboxes& boxes) noexcept;
  bool step_receive(Rounds& rounds, Mailboxes& boxes) noexcept;
  bool start_send(Rounds& rounds, Mailboxes& boxes) noexcept;
  const CommOperand& operand() const noexcept { return sends() ? call_->in : call_->out; }

  const Call* call_;
  Operation operation_;
  Deadline deadline_ = kNoDeadline;
  bool started_ = false, done_ = false, staged_ = false;
  int64_t at_ = 0;  // elements that are sent or received so far
  uint32_t half_ = 0;
  std::byte* stage_ = nullptr;
  Code code_ = Code::kOk;
};

// Advances all transfers until all are done; each ends with a code of its own.
void run_transfers(Rounds& rounds, Mailboxes& boxes, std::vector<std::unique_ptr<Transfer>>& transfers) noexcept;
// Takes one step of each, in order. Returns whether anything happened.
bool step_transfers(Rounds& rounds, Mailboxes& boxes, std::vector<std::unique_ptr<Transfer>>& transfers) noexcept;
// Waits until this rank's bell is no longer `seen`, or until it fails: then all transfers end. Returns whether any was to be awaited.
// `awaited` is memory that the caller keeps.
bool await_transfers(Rounds& rounds, uint32_t seen, std::vector<std::unique_ptr<Transfer>>& transfers,
                     std::vector<Awaited>& awaited) noexcept;

}  // namespace gradring
