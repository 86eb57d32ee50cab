#include "loader/pipeline.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "runtime/forks.h"
#include "runtime/team.h"
#include "runtime/trace.h"

namespace gradring {

namespace {

constexpr int64_t kTuneEvery = 20'000'000;  // ns
constexpr uint64_t kTuneBatches = 4;        // at least

int64_t now_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

void add(std::atomic<uint64_t>& counter, uint64_t by) noexcept {
  // One writer: no read-modify-write needed.
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

thread_local const Pipeline* serving = nullptr;  // whose worker this thread is

// The consumer fills its batches itself, and somebody closes the loader meanwhile.
class LoaderClosed final : public Stop {
 public:
  explicit LoaderClosed(const Pipeline& pipeline) noexcept : pipeline_(pipeline) {}
  bool asked() const noexcept override { return pipeline_.closed(); }

 private:
  const Pipeline& pipeline_;
};

// A part is large enough to be worth a ticket and small beside a second-level cache.
constexpr size_t kPartBytes = 512 << 10;
constexpr size_t kSplitFrom = 4 << 20;  // bytes of a batch
constexpr uint64_t kMostParts = 32;

ControlShape shape_of(const PipelineOptions& o, size_t batch_bytes) noexcept {
  const uint32_t workers = std::max(o.workers, 1u);
  if (o.processes) return {o.cells, workers, workers, 1};
  const uint64_t paying = batch_bytes < kSplitFrom ? 1 : std::min<uint64_t>(batch_bytes / kPartBytes, kMostParts);
  const uint64_t parts = o.parts > 0 ? o.parts : paying;
  return {o.cells, 1, workers, static_cast<uint32_t>(std::min(parts, static_cast<uint64_t>(o.batch_size)))};
}

uint32_t most_slots(const PipelineOptions& o, size_t slot_bytes) noexcept {
  const uint64_t least = o.cells + kSpareSlots;
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(o.memory_budget / std::max<size_t>(slot_bytes, 1), least, SlotPool::kMost));
}

}  // namespace

Pipeline::Pipeline(std::shared_ptr<const Source> source, const std::vector<FieldSpec>& fields,
                   const PipelineOptions& options)
    : options_(options),
      fields_(fields),
      layout_(fields, options.batch_size),
      filler_(source ? std::make_unique<Filler>(source, options.batch_size) : nullptr),
      slots_(std::make_shared<SlotPool>(layout_.bytes, most_slots(options, layout_.bytes), options.processes)),
      arena_(Control::bytes(shape_of(options, layout_.bytes))),
      control_(arena_.data(), shape_of(options, layout_.bytes),
               options.processes ? Scope::kProcesses : Scope::kThreads),
      pidfds_(std::max(options.workers, 1u), -1),
      born_in_fork_(forks_so_far()),
      tuner_(options.active, options.workers, options.help ? 0 : 1) {
  if (options.cells < 1 || options.workers > 1024 || (!source && !options.processes)) {
    throw Error(Code::kInternal, "[loader] a pipeline needs cells, at most 1024 workers, and a source or processes");
  }
  control_.format();
  if (filler_)
    self_ = std::make_unique<Worker>(control_, *filler_, slots_->base(), slots_->stride(), Worker::kConsumer);
  if (options_.workers == 0) return;
  for (uint32_t cell = 0; cell < options_.cells; ++cell) {
    if (!slots_->grow(&control_.cell(cell).slot)) {
      throw Error(Code::kOutOfMemory, "[loader] no memory for " + std::to_string(options_.cells) + " batches of " +
                                          std::to_string(layout_.bytes) + " bytes: lower batch_size or prefetch");
    }
  }
}

Pipeline::~Pipeline() { join(); }

bool Pipeline::on_own_thread() const noexcept { return serving == this; }

bool Pipeline::join(Deadline deadline) noexcept {
  if (forked()) {
    // The threads live in the parent only: there is nothing to join, and their handles must not be destroyed.
    (void)new std::vector<std::thread>(std::move(threads_));
    threads_.clear();
    return true;
  }
  close();
  quit_.store(true, std::memory_order_relaxed);
  control_.run().turn.publish(RunBlock::kQuit);
  if (on_own_thread()) return false;
  while (const uint32_t alive = alive_.load(std::memory_order_acquire)) {
    if (!futex_wait(alive_, alive, deadline, Scope::kThreads) && alive_.load(std::memory_order_acquire) != 0) {
      return false;
    }
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return true;
}

bool Pipeline::forked() const noexcept { return forks_so_far() != born_in_fork_; }

void Pipeline::start_threads() {
  if (!threads_.empty() || options_.processes) return;
  // Signals belong to the interpreter's thread.
  sigset_t all, old;
  sigfillset(&all);
  // Not those that an instruction raises: blocked, they end the process, and a file that shrank (SIGBUS) must not.
  for (int signal : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&all, signal);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  try {
    for (uint32_t index = 0; index < options_.workers; ++index) {
      alive_.fetch_add(1, std::memory_order_relaxed);
      threads_.emplace_back([this, index] {
        serving = this;
        pthread_setname_np(pthread_self(), "gradring-load");
        control_.worker(index).thread.store(static_cast<uint64_t>(pthread_self()), std::memory_order_relaxed);
        Worker worker(control_, *filler_, slots_->base(), slots_->stride(), index);
        worker.on_failure(failed_);
        worker.serve([this] { return !quit_.load(std::memory_order_relaxed); });
        const auto told = thread_end_;
        alive_.fetch_sub(1, std::memory_order_release);
        futex_wake_all(alive_, Scope::kThreads);
        if (told) told();
      });
    }
  } catch (const std::system_error& error) {
    alive_.fetch_sub(1, std::memory_order_release);
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    throw Error(Code::kUnavailable, std::string("[loader] cannot start a thread: ") + error.what());
  }
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void Pipeline::start(const OrderOptions& order, bool skip, Deadline deadline) {
  throw_if(Order::check(order));
  if (order.batch_size != options_.batch_size) {
    throw Error(Code::kInternal, "[loader] the order's batch_size differs from the pipeline's");
  }
  if (forked()) {
    throw Error(Code::kUnavailable,
                "[loader] this loader was started in another process, before fork: its workers are not here. Make a "
                "loader in the forked process, or start processes by spawn");
  }
  if (closed()) throw Error(Code::kClosed, "[loader] the loader was closed");
  stop();
  if (!parked(deadline)) throw Error(Code::kTimeout, "[loader] a worker did not finish its batch in time");
  order_ = Order(order);
  skip_ = skip;
  end_ = static_cast<uint64_t>(order_.batches());
  next_ = released_ = 0;
  left_at_ = 0;
  if (options_.workers == 0) return;
  for (uint32_t lane = 0; lane < control_.shape().lanes; ++lane) control_.ring(lane).open();
  RunBlock& run = control_.run();
  run.order = order;
  run.end = end_ * control_.shape().parts;
  run.skip = skip;
  set_active(options_.processes ? options_.workers : tuner_.active());
  start_threads();
  run.turn.publish((run.turn.value() + 1) % RunBlock::kQuit);
  // A close that came meanwhile found rings that were then opened.
  if (closed()) stop();
}

bool Pipeline::parked(Deadline deadline) noexcept {
  const uint32_t turn = control_.run().turn.value();
  for (uint32_t w = 0; w < options_.workers; ++w) {
    if (!options_.processes && threads_.empty()) break;
    for (;;) {
      const uint32_t done = control_.worker(w).done.value();
      if (done == turn) break;
      const Deadline slice = std::min(deadline, deadline_in(std::chrono::milliseconds(50)));
      if (control_.worker(w).done.wait_change(done, slice)) continue;
      // It touches no slot any more. Its death is told to whoever waits for it in the next run.
      if (options_.processes && dead(w)) control_.worker(w).done.publish(turn);
      if (Clock::now() >= deadline) return false;
    }
  }
  return true;
}

void Pipeline::set_active(uint32_t count) noexcept {
  active_.store(count, std::memory_order_relaxed);
  const uint32_t turn = (active_turn_.fetch_add(1, std::memory_order_relaxed) + 1) & 0x7fff;
  control_.run().active.publish(turn << 16 | count);
}

void Pipeline::stop() noexcept {
  if (forked()) return;  // the rings are the parent's, which goes on
  for (uint32_t lane = 0; lane < control_.shape().lanes; ++lane) control_.ring(lane).close();
  set_active(active_.load(std::memory_order_relaxed));  // workers at rest look up
}

void Pipeline::close() noexcept {
  closed_.store(true, std::memory_order_release);
  stop();
}

uint32_t Pipeline::held() const noexcept {
  const uint32_t own = (options_.workers ? options_.cells : 0) + (has_spare_ ? 1 : 0);
  const uint32_t taken = slots_->taken();
  return taken > own ? taken - own : 0;
}

Pipeline::Spare Pipeline::find_spare() noexcept {
  if (!has_spare_) has_spare_ = slots_->take(&spare_) || slots_->grow(&spare_);
  return has_spare_ ? Spare::kYes : Spare::kNo;
}

Delivered Pipeline::next(Delivery* delivery, Deadline deadline, Patience patience) noexcept {
  const int64_t asked = now_ns();
  if (left_at_ != 0) {
    add(counters_.own_ns, static_cast<uint64_t>(asked - left_at_));
    left_at_ = 0;
    if (options_.tune) tune(asked);
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
  for (; next_ < end_; ++next_) {
    bool waited = false;
    for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
      Ring<> ring = ring_of(piece);
      uint64_t ticket = ticket_of(next_, piece);
      if (!ring.full(ticket)) {
        flush_releases();
        if (deadline == Deadline{}) return Delivered::kTimeout;
        waited = true;
        if (options_.help && control_.shape().parts > 1) {
          const int64_t begin = now_ns();
          help_parts(ticket);
          add(counters_.fill_ns, static_cast<uint64_t>(now_ns() - begin));
        } else if (options_.help) {
          const int64_t begin = now_ns();
          const Delivered result = help(delivery);
          const int64_t end = now_ns();
          add(counters_.fill_ns, static_cast<uint64_t>(end - begin));
          if (result != Delivered::kTimeout) {
            add(counters_.wait_ns, static_cast<uint64_t>(end - asked));
            return result;
          }
          ticket = ticket_of(next_, piece);  // batches without rows were passed over
        }
      }
      const RingWait wait = ring.await(ticket, deadline, patience);
      if (wait == RingWait::kTimeout || wait == RingWait::kClosed) {
        count_wait(asked);
        return wait == RingWait::kTimeout ? Delivered::kTimeout : Delivered::kClosed;
      }
      // Its worker went no further, so the parts behind it may never come.
      if (!said_of(next_, piece).status.ok()) break;
    }
    if (waited) {
      count_wait(asked);
    } else {
      add(counters_.ready, 1);
    }
    const Delivered result = take(delivery);
    // A batch whose samples were all skipped is passed over.
    if (result == Delivered::kBatch && delivery->rows == 0) {
      slots_->give(delivery->slot);
      continue;
    }
    if (result == Delivered::kBatch) {
      ++next_;
      left_at_ = now_ns();
    }
    return result;
  }
  return Delivered::kEnd;
}

void Pipeline::count_wait(int64_t since) noexcept {
  const int64_t now = now_ns();
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

// The consumer as one more producer, for as long as the batch next_ is not there. kTimeout: it is there, or there is
// nothing left to fill.
Delivered Pipeline::help(Delivery* delivery) noexcept {
  Ring<> ring = control_.ring(0);
  while (next_ < end_ && !ring.full(next_)) {
    if (find_spare() == Spare::kNo) return Delivered::kHeld;
    uint64_t ticket;
    if (!ring.claim_if_free(end_, &ticket)) return Delivered::kTimeout;
    if (ticket != next_) {
      self_->fill(ticket, order_);  // what comes of it is seen when its turn has come
      continue;
    }
    // Into the slot that the consumer let go last: this core's cache has it. The cell keeps its own.
    const Delivered result = fill_one(delivery);
    if (result == Delivered::kFailed)
      control_.part(0, ring.slot(ticket)) = failed_part_;  // whoever asks again hears it
    ring.commit(ticket);
    if (result != Delivered::kTimeout) return result;
    ++next_;
    flush_releases();
  }
  return next_ < end_ ? Delivered::kTimeout : Delivered::kEnd;
}

// The same for batches in parts: those that are free, until the ticket's is there or somebody else is at it.
void Pipeline::help_parts(uint64_t ticket) noexcept {
  Ring<> ring = control_.ring(0);
  uint64_t mine;
  while (!ring.full(ticket) && ring.claim_if_free(end_ * control_.shape().parts, &mine)) self_->fill(mine, order_);
}

// Fills the spare slot with the batch next_. kTimeout: it has no rows, all were skipped.
Delivered Pipeline::fill_one(Delivery* delivery) noexcept {
  const auto batch = static_cast<int64_t>(next_);
  const TraceSpan span("fill batch", batch);
  PartBlock part;
  const LoaderClosed stop(*this);
  filler_->fill(order_, batch, {0, order_.rows(batch)}, skip_, slots_->data(spare_), self_->scratch(), &part,
                &control_.worker(0), &stop);
  if (part.status.code() == Code::kClosed) return Delivered::kClosed;
  if (!part.status.ok()) {
    failed_lane_ = 0;
    failed_part_ = part;
    if (failed_) failed_(next_, part);
    return Delivered::kFailed;
  }
  add(counters_.skipped, static_cast<uint64_t>(part.skipped));
  if (part.rows == 0) return Delivered::kTimeout;
  *delivery = {spare_, part.rows, order_.position(batch), batch};
  has_spare_ = false;
  add(counters_.batches, 1);
  add(counters_.rows, static_cast<uint64_t>(part.rows));
  add(counters_.bytes, static_cast<uint64_t>(part.rows) * layout_.all_row_bytes);
  ++next_;
  left_at_ = now_ns();
  return Delivered::kBatch;
}

// The batch next_ is whole: look at what the lanes say, and swap its slot for a spare one.
Delivered Pipeline::take(Delivery* delivery) noexcept {
  const auto cell = static_cast<uint32_t>(next_ % options_.cells);
  const uint32_t pieces = control_.shape().pieces();
  int64_t rows = 0, skipped = 0;
  for (uint32_t piece = 0; piece < pieces; ++piece) {
    const PartBlock& part = said_of(next_, piece);
    if (part.status.code() == Code::kClosed) return Delivered::kClosed;
    if (!part.status.ok()) {
      failed_lane_ = lane_of(piece);
      failed_part_ = part;
      return Delivered::kFailed;
    }
    rows += part.rows;
    skipped += part.skipped;
  }
  if (find_spare() == Spare::kNo) return Delivered::kHeld;
  const uint32_t slot = control_.cell(cell).slot;
  if (skipped > 0 && pieces > 1) compact(slots_->data(slot), order_.rows(static_cast<int64_t>(next_)));
  *delivery = {slot, rows, order_.position(static_cast<int64_t>(next_)), static_cast<int64_t>(next_)};
  control_.cell(cell).slot = spare_;
  has_spare_ = false;
  // Workers that sleep are woken for several cells at a time, as long as others are full.
  if (next_ + 1 - released_ >= std::max(options_.cells / 2, 1u) || pieces > 1) {
    ++next_;
    flush_releases();
    --next_;
  }
  uint32_t ready = 0;
  while (ready + 1 < options_.cells && whole(next_ + 1 + ready)) ++ready;
  add(counters_.occupancy[std::min<size_t>(ready, ConsumerCounters::kOccupancies - 1)], 1);
  add(counters_.batches, 1);
  add(counters_.rows, static_cast<uint64_t>(rows));
  add(counters_.skipped, static_cast<uint64_t>(skipped));
  add(counters_.bytes, static_cast<uint64_t>(rows) * layout_.all_row_bytes);
  return Delivered::kBatch;
}

void Pipeline::flush_releases() noexcept {
  for (; released_ < next_; ++released_) {
    for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
      ring_of(piece).release(ticket_of(released_, piece));
    }
  }
}

bool Pipeline::whole(uint64_t batch) const noexcept {
  for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
    if (!ring_of(piece).full(ticket_of(batch, piece))) return false;
  }
  return true;
}

// Pieces with samples that were skipped left gaps between their rows.
void Pipeline::compact(std::byte* slot, int64_t rows) const noexcept {
  const uint32_t pieces = control_.shape().pieces();
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

bool Pipeline::dead(uint32_t lane) const noexcept {
  if (pidfds_[lane] < 0) return false;
  pollfd descriptor{pidfds_[lane], POLLIN, 0};
  return poll(&descriptor, 1, 0) == 1;
}

int Pipeline::dead_lane() const noexcept {
  for (uint32_t lane = 0; lane < pidfds_.size(); ++lane) {
    if (dead(lane)) return static_cast<int>(lane);
  }
  return -1;
}

void Pipeline::recover_lane(uint32_t lane, bool restart) noexcept {
  pidfds_[lane] = -1;
  Ring<> ring = control_.ring(lane);
  ring.recover(released_);
  RunBlock& run = control_.run();
  const uint32_t turn = run.turn.value();
  WorkerBlock& worker = control_.worker(lane);
  worker.ticket.store(-1, std::memory_order_relaxed);
  // Whoever parked stays so; whoever was at work is taken up again by the successor.
  if (worker.done.value() == turn) return;
  worker.done.publish(restart ? (turn + RunBlock::kQuit - 1) % RunBlock::kQuit : turn);
}

int Pipeline::waited_lane() noexcept {
  if (next_ >= end_ || options_.workers == 0) return -1;
  for (uint32_t piece = 0; piece < control_.shape().pieces(); ++piece) {
    if (!ring_of(piece).full(ticket_of(next_, piece))) return static_cast<int>(lane_of(piece));
  }
  return -1;
}

void Pipeline::tune(int64_t now) noexcept {
  if (now - looked_.at < kTuneEvery) return;
  const uint64_t batches = counters_.batches.load(std::memory_order_relaxed);
  if (batches - looked_.batches < kTuneBatches) return;
  uint64_t busy = 0;
  for (uint32_t w = 0; w < options_.workers; ++w) busy += control_.worker(w).busy_ns.load(std::memory_order_relaxed);
  const uint64_t waited = counters_.wait_ns.load(std::memory_order_relaxed);
  const uint64_t worked = counters_.own_ns.load(std::memory_order_relaxed);
  if (looked_.at != 0) {
    const uint32_t before = tuner_.active();
    // Not from clock to clock: what the user does between two epochs is no work on batches.
    const uint64_t span = waited - looked_.waited + worked - looked_.worked;
    const uint32_t active =
        tuner_.look({static_cast<double>(span) * 1e-9, static_cast<double>(waited - looked_.waited) * 1e-9,
                     static_cast<double>(busy - looked_.busy) * 1e-9, static_cast<double>(batches - looked_.batches)});
    if (active != before) set_active(active);
  }
  looked_ = {now, waited, worked, busy, batches};
}

}  // namespace gradring
