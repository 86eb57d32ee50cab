#include "comm/transfer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/stage.h"

namespace gradring {

namespace {

constexpr size_t kHalf = Rounds::kLeastScratch;
constexpr uint32_t kMask = Rounds::kRoundMask;

enum class Way : uint64_t { kCell, kSegment, kStaged };

struct Message {
  Way way;
  uint64_t offset;  // where the array, or the pair of halves, begins in the sender's segment
};

Message message_of(const Cell& cell) noexcept {
  Message message;
  std::memcpy(&message, cell.payload, sizeof message);
  return message;
}

bool fits_cell(const CommOperand& operand) noexcept { return operand.bytes() <= kInlineBytes; }

uint32_t round_of(const Cell& cell) noexcept { return cell.word.load(std::memory_order_acquire) >> 1; }

}  // namespace

std::byte* Mailboxes::allocate(OwnSegment& own) {
  auto* const stage = static_cast<std::byte*>(own.allocate_words(2 * kHalf));
  if (!own.detached()) return stage;
  own.free(stage);  // it may lie in what has become private already
  return nullptr;
}

void Mailboxes::free(OwnSegment& own) noexcept {
  for (std::byte*& stage : stages_)
    if (stage) own.free(std::exchange(stage, nullptr));
}

bool Transfer::step(Rounds& rounds, Mailboxes& boxes) noexcept {
  if (done_) return false;
  return sends() ? step_send(rounds, boxes) : step_receive(rounds, boxes);
}

bool Transfer::start_send(Rounds& rounds, Mailboxes& boxes) noexcept {
  const auto peer = static_cast<size_t>(call_->peer);
  Mailbox& box = rounds.control().mailbox(rounds.rank(), call_->peer);
  if (round_of(box.taken) != (boxes.sent_[peer] & kMask)) return false;  // an earlier message lies there
  OwnSegment& own = rounds.segments()->own;
  const CommOperand& from = operand();
  box.sent.set(call_->agreement);
  started_ = true;
  if (fits_cell(from)) {
    from.gather(0, from.elements(), box.sent.payload);
    at_ = from.elements();
    failpoint("before publish", rounds.rank());
    rounds.post(box.sent.word, ++boxes.sent_[peer], call_->peer);
    end(Code::kOk);  // the sender is done: the receiver reads the cell later
    return true;
  }
  Message message{Way::kSegment, 0};
  if (own.contains(from.data())) rounds.expose_to_receiver();
  if (from.contiguous() && own.offset_of(from.data(), from.bytes(), &message.offset)) {
    at_ = from.elements();
  } else {
    if (!boxes.stages_[peer]) {
      try {
        boxes.stages_[peer] = boxes.allocate(own);
      } catch (...) {
        end(rounds.fail(Failure::Reason::kMemory, rounds.rank(), operation_));
        return true;
      }
      if (!boxes.stages_[peer]) {
        end(rounds.fail(Failure::Reason::kLost, rounds.rank(), operation_));
        return true;
      }
    }
    stage_ = boxes.stages_[peer];
    staged_ = true;
    message.way = Way::kStaged;
    message.offset = static_cast<uint64_t>(stage_ - own.at(0));
  }
  std::memcpy(box.sent.payload, &message, sizeof message);
  if (!staged_) {
    failpoint("before publish", rounds.rank());
    rounds.post(box.sent.word, ++boxes.sent_[peer], call_->peer);
  }
  return true;
}

bool Transfer::step_send(Rounds& rounds, Mailboxes& boxes) noexcept {
  const auto peer = static_cast<size_t>(call_->peer);
  const bool begun = started_;
  if (!started_ && !start_send(rounds, boxes)) return false;
  if (done_) return true;
  Mailbox& box = rounds.control().mailbox(rounds.rank(), call_->peer);
  const CommOperand& from = operand();
  bool moved = !begun;
  while (staged_ && at_ < from.elements() && ((boxes.sent_[peer] - round_of(box.taken)) & kMask) < 2) {
    const int64_t count = std::min(static_cast<int64_t>(kHalf / from.element_bytes()), from.elements() - at_);
    stage_elements(from, at_, count, stage_ + half_ * kHalf, rounds.scratch());
    failpoint("staged", rounds.rank());
    rounds.post(box.sent.word, ++boxes.sent_[peer], call_->peer);
    at_ += count;
    half_ ^= 1;
    moved = true;
  }
  if (at_ == from.elements() && round_of(box.taken) == (boxes.sent_[peer] & kMask)) {
    end(Code::kOk);
    return true;
  }
  return moved;
}

bool Transfer::step_receive(Rounds& rounds, Mailboxes& boxes) noexcept {
  const auto peer = static_cast<size_t>(call_->peer);
  Mailbox& box = rounds.control().mailbox(call_->peer, rounds.rank());
  const CommOperand& to = operand();
  bool moved = false;
  while (!done_ && ((round_of(box.sent) - boxes.received_[peer]) & kMask) != 0) {
    moved = true;
    const Message message = message_of(box.sent);
    if (!started_) {
      Agreement wanted = call_->agreement;
      wanted.kind = Collective::kSend;
      if (const Agreement sent = box.sent.agreement(); !(sent == wanted)) {
        end(rounds.mismatch(call_->peer, sent, operation_));
        return true;
      }
      started_ = true;
    }
    const bool in_cell = fits_cell(to), staged = !in_cell && message.way == Way::kStaged;
    const int64_t count =
        staged ? std::min(static_cast<int64_t>(kHalf / to.element_bytes()), to.elements() - at_) : to.elements();
    const std::byte* from = box.sent.payload;
    if (!in_cell) {
      from = rounds.reach(call_->peer, message.offset + (staged ? half_ * kHalf : 0),
                          static_cast<size_t>(count) * to.element_bytes());
      if (!from) {
        end(rounds.fail(Failure::Reason::kMemory, rounds.rank(), operation_));
        return true;
      }
    }
    to.scatter(at_, count, from);
    failpoint("after write", rounds.rank());
    if (!in_cell) {
      if (const Code code = rounds.after_access(operation_); code != Code::kOk) [[unlikely]] {
        end(code);
        return true;
      }
    }
    at_ += count;
    half_ ^= 1;
    rounds.post(box.taken.word, ++boxes.received_[peer], call_->peer);
    if (at_ == to.elements()) end(Code::kOk);
  }
  return moved;
}

bool step_transfers(Rounds& rounds, Mailboxes& boxes, std::vector<std::unique_ptr<Transfer>>& transfers) noexcept {
  bool moved = false;
  for (size_t i = 0; i < transfers.size(); ++i) {
    bool waits = false;
    for (size_t k = 0; k < i; ++k) waits = waits || (!transfers[k]->done() && transfers[k]->same_way(*transfers[i]));
    if (!waits) moved = transfers[i]->step(rounds, boxes) || moved;
  }
  return moved;
}

bool await_transfers(Rounds& rounds, uint32_t seen, std::vector<std::unique_ptr<Transfer>>& transfers,
                     std::vector<Awaited>& awaited) noexcept {
  awaited.clear();
  for (const auto& transfer : transfers)
    if (!transfer->done()) awaited.push_back(transfer->awaited());
  if (awaited.empty()) return false;
  if (const Code code = rounds.await_bell(seen, awaited); code != Code::kOk) {
    for (const auto& transfer : transfers)
      if (!transfer->done()) transfer->end(code);
  }
  return true;
}

void run_transfers(Rounds& rounds, Mailboxes& boxes, std::vector<std::unique_ptr<Transfer>>& transfers) noexcept {
  std::vector<Awaited> awaited;
  for (;;) {
    const uint32_t seen = rounds.bell();
    if (step_transfers(rounds, boxes, transfers)) continue;
    if (!await_transfers(rounds, seen, transfers, awaited)) return;
  }
}

}  // namespace gradring
