// The consumer's side of Pipeline: it waits for the next batch, or fills it, and swaps its slot for a spare one.
#include <algorithm>
#include <cstring>

#include "loader/pipeline.h"
#include "runtime/clock.h"
#include "runtime/team.h"
#include "runtime/trace.h"

namespace gradring {

namespace {

constexpr int64_t kTuneEvery = 20'000'000;    // ns
constexpr int64_t kLookForDead = 50'000'000;  // ns
constexpr uint64_t kTuneBatches = 4;          // the fewest batches between two looks; at least 2 * ahead() too

// Stops the consumer while it fills a batch itself, if another thread closes the loader.
class LoaderClosed final : public Stop {
 public:
  explicit LoaderClosed(const Pipeline& pipeline) noexcept : pipeline_(pipeline) {}
  bool asked() const noexcept override { return pipeline_.closed(); }

 private:
  const Pipeline& pipeline_;
};

}  // namespace

Pipeline::Spare Pipeline::find_spare() noexcept {
  if (!has_spare_) has_spare_ = slots_->take(&spare_) || slots_->grow(&spare_);
  return has_spare_ ? Spare::kYes : Spare::kNo;
}

Delivered Pipeline::next(Delivery* delivery, Deadline deadline, Patience patience) noexcept {
  const int64_t asked = monotonic_ns();
  if (left_at_ != 0) {
    add(counters_.own_ns, static_cast<uint64_t>(asked - left_at_));
    left_at_ = 0;
    tune(asked);
  }
  // A forked child must not touch a ring that its parent shares with worker processes.
  if (closed() || forked()) return Delivered::kClosed;
  if (options_.workers == 0) {
    const Delivered result = fill_here(delivery);
    if (result == Delivered::kBatch) {
      add(counters_.wait_ns, static_cast<uint64_t>(left_at_ - asked));
      add(counters_.fill_ns, static_cast<uint64_t>(left_at_ - asked));
    }
    return result;
  }
  if (options_.processes && idle_stripe_died(asked)) return Delivered::kTimeout;
  while (next_ < end_) {
    bool waited = false;
    if (next_ == allowed_) allow_more();  // pass_idle_stripes needs a ticket that is allowed
    pass_idle_stripes();
    for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
      Ring<> ring = ring_of(piece);
      uint64_t ticket = ticket_of(next_, piece);
      if (!ring.full(ticket)) {
        allow_more();
        if (deadline == Deadline{}) return Delivered::kTimeout;
        waited = true;
        if (helps() && control_.shape().parts > 1) {
          const int64_t begin = monotonic_ns();
          help_parts(ticket);
          add(counters_.fill_ns, static_cast<uint64_t>(monotonic_ns() - begin));
        } else if (helps()) {
          const int64_t begin = monotonic_ns();
          const Delivered result = help(delivery);
          const int64_t end = monotonic_ns();
          add(counters_.fill_ns, static_cast<uint64_t>(end - begin));
          if (result != Delivered::kTimeout) {
            add(counters_.wait_ns, static_cast<uint64_t>(end - asked));
            return result;
          }
          ticket = ticket_of(next_, piece);  // help may have passed over batches without rows
        }
      }
      const RingWait wait = ring.await(ticket, deadline, patience);
      if (wait == RingWait::kTimeout || wait == RingWait::kClosed) {
        count_wait(asked);
        return wait == RingWait::kTimeout ? Delivered::kTimeout : Delivered::kClosed;
      }
      // A worker stops at a failure, so the pieces after this one may never come.
      if (!said_of(next_, piece).status.ok()) break;
    }
    if (waited) {
      count_wait(asked);
    } else {
      add(counters_.ready, 1);
    }
    const Delivered result = take(delivery);
    // Pass over a batch whose samples were all skipped.
    if (result == Delivered::kBatch && delivery->rows == 0) {
      slots_->give(delivery->slot);
      continue;
    }
    if (result == Delivered::kBatch) left_at_ = monotonic_ns();
    return result;
  }
  return Delivered::kEnd;
}

void Pipeline::count_wait(int64_t since) noexcept {
  const int64_t now = monotonic_ns();
  add(counters_.wait_ns, static_cast<uint64_t>(now - since));
  if (trace_is_on.load(std::memory_order_relaxed)) {
    trace_record("wait for batch", since, now, static_cast<int64_t>(next_));
  }
}

Delivered Pipeline::fill_here(Delivery* delivery) noexcept {
  for (; next_ < end_; ++next_) {
    if (find_spare() == Spare::kNo) return Delivered::kHeld;
    const Delivered result = fill_one(delivery);
    if (result != Delivered::kTimeout) return result;
  }
  return Delivered::kEnd;
}

// The consumer works as one more producer until the batch next_ is there. Returns kTimeout if it is there, or if nothing
// is left to fill.
Delivered Pipeline::help(Delivery* delivery) noexcept {
  Ring<> ring = control_.ring(0);
  while (next_ < end_ && !ring.full(next_)) {
    if (find_spare() == Spare::kNo) return Delivered::kHeld;
    uint64_t ticket;
    if (!ring.claim_if_free(end_, &ticket)) return Delivered::kTimeout;
    if (ticket != next_) {
      self_->fill(ticket, order_);  // next sees the result when the consumer comes to that batch
      continue;
    }
    // Fill the slot that the consumer gave back last, because this core's cache still holds it. The slot that was meant
    // for this batch goes into the reserve.
    const uint32_t slot = control_.cell(cell_of(ticket)).slot;
    const Delivered result = fill_one(delivery);
    if (result == Delivered::kFailed)
      control_.part(0, ring.slot(ticket)) = failed_part_;  // the next call of next returns it again
    ring.commit(ticket);
    if (result == Delivered::kTimeout) ++next_;
    if (next_ > ticket) leave_slot(slot);
    if (result != Delivered::kTimeout) return result;
    allow_more();
  }
  return next_ < end_ ? Delivered::kTimeout : Delivered::kEnd;
}

// Does the work of help for batches in parts: fills free parts until the part of this ticket is there, or another
// worker fills it.
void Pipeline::help_parts(uint64_t ticket) noexcept {
  Ring<> ring = control_.ring(0);
  uint64_t mine;
  while (!ring.full(ticket) && ring.claim_if_free(end_ * control_.shape().parts, &mine)) self_->fill(mine, order_);
}

// Fills the spare slot with the batch next_. Returns kTimeout if the batch has no rows because all were skipped.
Delivered Pipeline::fill_one(Delivery* delivery) noexcept {
  const auto batch = static_cast<int64_t>(next_);
  const TraceSpan span("fill batch", batch);
  PartBlock part;
  const LoaderClosed stop(*this);
  filler_->fill(order_, batch, {0, order_.rows(batch)}, skip_, slots_->data(spare_), self_->scratch(), &part,
                &control_.worker(0), &stop);
  if (part.status.code() == Code::kClosed) return Delivered::kClosed;
  if (!part.status.ok()) {
    failed_stripe_ = 0;
    failed_part_ = part;
    if (failed_) failed_(next_, part);
    return Delivered::kFailed;
  }
  add(counters_.skipped, static_cast<uint64_t>(part.skipped));
  if (part.rows == 0) return Delivered::kTimeout;
  has_spare_ = false;
  deliver(delivery, spare_, part.rows);
  left_at_ = monotonic_ns();
  return Delivered::kBatch;
}

// Delivers the batch next_, which is whole, unless a stripe reports a failure. A spare slot takes the place of its slot.
Delivered Pipeline::take(Delivery* delivery) noexcept {
  const uint32_t pieces = control_.shape().pieces();
  int64_t rows = 0, skipped = 0;
  for (uint32_t piece = 0; piece < pieces; ++piece) {
    const PartBlock& part = said_of(next_, piece);
    if (part.status.code() == Code::kClosed) return Delivered::kClosed;
    if (!part.status.ok()) {
      failed_stripe_ = stripe_of(piece);
      failed_part_ = part;
      return Delivered::kFailed;
    }
    rows += part.rows;
    skipped += part.skipped;
  }
  if (find_spare() == Spare::kNo) return Delivered::kHeld;
  const uint32_t slot = control_.cell(cell_of(next_)).slot;
  if (skipped > 0 && pieces > 1) compact(slots_->data(slot), order_.rows(static_cast<int64_t>(next_)));
  leave_slot(spare_);
  has_spare_ = false;
  add(counters_.skipped, static_cast<uint64_t>(skipped));
  deliver(delivery, slot, rows);
  // Wake sleeping workers for several batches at a time while other batches are ready: a wake takes longer than all the
  // rest of a hand-off. Workers that share a batch are woken at once, because such a batch may take long.
  const uint32_t enough = std::max(std::min(ahead() / 2 + 1, ahead() - 1), 1u);
  if (reserved_ >= enough || control_.shape().parts > 1 || !sleeper()) allow_more();
  uint32_t ready = 0;
  while (next_ + ready < allowed_ && whole(next_ + ready)) ++ready;
  add(counters_.occupancy[std::min<size_t>(ready, ConsumerCounters::kOccupancies - 1)], 1);
  return Delivered::kBatch;
}

void Pipeline::deliver(Delivery* delivery, uint32_t slot, int64_t rows) noexcept {
  const auto batch = static_cast<int64_t>(next_);
  *delivery = {slot, rows, order_.position(batch), batch};
  add(counters_.batches, 1);
  add(counters_.rows, static_cast<uint64_t>(rows));
  add(counters_.bytes, static_cast<uint64_t>(rows) * layout_.all_row_bytes);
  ++next_;
}

// Whether a worker sleeps until the next ticket is allowed.
bool Pipeline::sleeper() const noexcept {
  for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
    if (ring_of(piece).sleeper(ticket_of(allowed_, piece))) return true;
  }
  return false;
}

void Pipeline::allow_more() noexcept {
  const uint64_t end = next_ + ahead();
  uint32_t i = 0;
  for (; allowed_ < end && i < reserved_; ++allowed_) {
    control_.cell(cell_of(allowed_)) = {reserve_[i++],
                                        control_.shape().stripes > 1 ? active() : control_.shape().parts};
    for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
      ring_of(piece).allow(ticket_of(allowed_, piece));
    }
  }
  while (i < reserved_) slots_->give(reserve_[i++]);  // the tuner lowered ahead(): these slots are not needed
  reserved_ = 0;
}

// Sets ahead() to `count`, or to fewer where memory does not allow so many slots.
void Pipeline::set_ahead(uint32_t count) noexcept {
  uint32_t own = static_cast<uint32_t>(allowed_ - next_) + reserved_;
  uint32_t slot;
  for (; own < count && (slots_->take(&slot) || slots_->grow(&slot)); ++own) leave_slot(slot);
  control_.run().ahead.store(std::min(own, count), std::memory_order_relaxed);
}

bool Pipeline::whole(uint64_t batch) const noexcept {
  for (uint32_t piece = 0; piece < pieces_of(batch); ++piece) {
    if (!ring_of(piece).full(ticket_of(batch, piece))) return false;
  }
  return true;
}

// Commits the tickets of stripes that have no rows of the batch next_: their workers rest. A worker that woke may have
// claimed the ticket already; then it commits the ticket itself.
void Pipeline::pass_idle_stripes() noexcept {
  if (next_ == allowed_) return;
  for (uint32_t stripe = pieces_of(next_); stripe < control_.shape().stripes; ++stripe) {
    Ring<> ring = control_.ring(stripe);
    if (!ring.claim_this(next_)) continue;
    control_.part(stripe, ring.slot(next_)) = {};
    ring.commit(next_);
  }
}

// Whether the process of a stripe that rests has died. It stays true until the stripe is recovered.
bool Pipeline::idle_stripe_died(int64_t now) noexcept {
  // Resting stripes may still owe rows of batches below RunBlock::from. If such a process dies, the missing batch shows
  // it.
  if (now - saw_idle_at_ < kLookForDead || next_ < control_.run().from.load(std::memory_order_relaxed)) return false;
  for (uint32_t stripe = active(); stripe < options_.workers; ++stripe) {
    if (dead(stripe)) return true;
  }
  saw_idle_at_ = now;
  return false;
}

// Closes the gaps between the rows of the pieces, which samples that were skipped have left.
void Pipeline::compact(std::byte* slot, int64_t rows) const noexcept {
  const uint32_t pieces = pieces_of(next_);
  int64_t to = 0;
  for (uint32_t p = 0; p < pieces; ++p) {
    const Range range = split(Lane{nullptr, static_cast<int>(p), static_cast<int>(pieces)}, rows);
    const int64_t count = said_of(next_, p).rows;
    const auto move = [&](size_t offset, size_t row_bytes) {
      std::memmove(slot + offset + static_cast<size_t>(to) * row_bytes,
                   slot + offset + static_cast<size_t>(range.begin) * row_bytes,
                   static_cast<size_t>(count) * row_bytes);
    };
    move(0, sizeof(int64_t));
    for (size_t i = 0; i < layout_.offsets.size(); ++i) move(layout_.offsets[i], layout_.row_bytes[i]);
    to += count;
  }
}

int Pipeline::waited_stripe() noexcept {
  if (next_ >= end_ || options_.workers == 0) return -1;
  for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
    if (!ring_of(piece).full(ticket_of(next_, piece))) return static_cast<int>(stripe_of(piece));
  }
  return -1;
}

void Pipeline::tune(int64_t now) noexcept {
  if (!options_.tunes() || now - looked_.at < kTuneEvery) return;
  const uint64_t batches = counters_.batches.load(std::memory_order_relaxed);
  if (batches - looked_.batches < std::max<uint64_t>(kTuneBatches, 2 * ahead())) return;
  uint64_t busy = 0;
  for (uint32_t w = 0; w < options_.workers; ++w) busy += control_.worker(w).busy_ns.load(std::memory_order_relaxed);
  const uint64_t waited = counters_.wait_ns.load(std::memory_order_relaxed);
  const uint64_t filled = counters_.fill_ns.load(std::memory_order_relaxed);
  const uint64_t worked = counters_.own_ns.load(std::memory_order_relaxed);
  if (looked_.at != 0) {
    // Add up waits and work, instead of the time between two looks, because the time between two epochs is no work on
    // batches.
    const uint64_t span = waited - looked_.waited + worked - looked_.worked;
    tuner_.look({static_cast<double>(span) * 1e-9, static_cast<double>(waited - looked_.waited) * 1e-9,
                 static_cast<double>(busy - looked_.busy) * 1e-9, static_cast<double>(batches - looked_.batches),
                 static_cast<double>(filled - looked_.filled) * 1e-9});
    if (tuner_.active() != active()) set_active(tuner_.active());
    if (tuner_.ahead() != ahead()) set_ahead(tuner_.ahead());
    choose_stores();
  }
  looked_ = {now, waited, filled, worked, busy, batches};
}

}  // namespace gradring
