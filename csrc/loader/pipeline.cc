#include "loader/pipeline.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <string>

#include "runtime/cpu.h"
#include "runtime/forks.h"

namespace gradring {

namespace {

thread_local const Pipeline* serving = nullptr;  // the pipeline whose worker this thread is

// The size of a part: large enough to be worth a ticket, and small compared with a second-level cache.
constexpr size_t kPartBytes = 512 << 10;
constexpr size_t kSplitFrom = 4 << 20;  // batches of fewer bytes are not split
constexpr uint64_t kMostParts = 32;

// If all slots together take less than kSmallBytes, they stay in a second-level cache or close to it. If they take more
// than kCachedBytes, no cache holds them: that is half of a usual last-level cache, because the rows that are read pass
// through it too.
constexpr size_t kSmallBytes = 2 << 20;
constexpr size_t kCachedBytes = 16 << 20;

size_t slots_bytes(uint32_t ahead, size_t stride) noexcept { return (ahead + kSpareSlots) * stride; }

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

Tuner::Start range_of(const PipelineOptions& o, size_t stride) noexcept {
  const uint32_t least = o.tune ? (o.help ? 0 : 1) : o.active;
  const uint32_t ahead = o.ahead > 0 ? o.ahead : o.cells;
  const size_t bytes = slots_bytes(ahead, stride);
  return {o.active,
          least,
          o.tune ? o.workers : o.active,
          ahead,
          o.cells,
          static_cast<uint32_t>(usable_cores()),
          bytes >= kSmallBytes && bytes <= kCachedBytes};
}

}  // namespace

Pipeline::Pipeline(std::shared_ptr<const Source> source, const std::vector<FieldSpec>& fields,
                   const PipelineOptions& options)
    : options_(options),
      fields_(fields),
      layout_(fields, options.batch_size),
      filler_(source ? std::make_unique<Filler>(source, options.batch_size) : nullptr),
      slots_(std::make_shared<SlotPool>(layout_.bytes, options.cells + kSpareSlots, most_slots(options, layout_.bytes),
                                        options.processes || options.pinner)),
      arena_(Control::bytes(shape_of(options, layout_.bytes))),
      control_(arena_.data(), shape_of(options, layout_.bytes),
               options.processes ? Scope::kProcesses : Scope::kThreads),
      pidfds_(std::max(options.workers, 1u), -1),
      tuner_(range_of(options, slots_->stride())) {
  if (options.cells < 1 || options.ahead > options.cells || options.workers > 1024 || (!source && !options.processes)) {
    throw Error(Code::kInternal, "[loader] a pipeline needs cells, at most 1024 workers, and a source or processes");
  }
  if (options.pinner) slots_->pin(*options.pinner);
  control_.format();
  if (filler_) self_ = std::make_unique<Worker>(control_, *filler_, slots_->map(), Worker::kConsumer);
  if (options_.workers == 0) return;
  active_.store(tuner_.active(), std::memory_order_relaxed);
  reserve_ = std::make_unique<uint32_t[]>(options_.cells);
  set_ahead(tuner_.ahead());
  choose_stores();
  if (ahead() < tuner_.ahead()) {
    throw Error(Code::kOutOfMemory, "[loader] no memory for " + std::to_string(tuner_.ahead()) + " batches of " +
                                        std::to_string(layout_.bytes) + " bytes: lower batch_size or prefetch");
  }
}

Pipeline::~Pipeline() { join(); }

bool Pipeline::on_own_thread() const noexcept { return serving == this; }

bool Pipeline::join(Deadline deadline) noexcept {
  if (forked()) return true;  // the threads exist in the parent only
  close();
  quit_.store(true, std::memory_order_relaxed);
  control_.run().turn.publish(RunBlock::kQuit);
  if (on_own_thread()) return false;
  while (const uint32_t alive = alive_.load(std::memory_order_acquire)) {
    if (!futex_wait(alive_, alive, deadline, Scope::kThreads) && alive_.load(std::memory_order_acquire) != 0) {
      return false;
    }
  }
  for (std::thread& thread : *threads_) thread.join();
  threads_->clear();
  return true;
}

bool Pipeline::forked() const noexcept { return threads_.in_child(); }

// Starts the threads that are missing: all of them at the first run, and later those that the system refused before.
void Pipeline::start_threads() {
  if (threads_->size() == options_.workers || options_.processes) return;
  while (workers_->size() < options_.workers) {
    const auto index = static_cast<uint32_t>(workers_->size());
    workers_->push_back(std::make_unique<Worker>(control_, *filler_, slots_->map(), index));
    workers_->back()->on_failure(failed_);
  }
  threads_->reserve(options_.workers);
  // The interpreter's main thread handles signals, so the new threads block them.
  sigset_t all, old;
  sigfillset(&all);
  // They do not block the signals that an instruction raises: if such a signal is blocked, it ends the process, and
  // the SIGBUS of a file that shrank must not.
  for (int signal : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&all, signal);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  try {
    for (auto index = static_cast<uint32_t>(threads_->size()); index < options_.workers; ++index) {
      // A thread that starts late takes no part in the runs that it missed.
      control_.worker(index).done.publish(control_.run().turn.value());
      alive_.fetch_add(1, std::memory_order_relaxed);
      Worker* const worker = (*workers_)[index].get();
      threads_->emplace_back([this, worker, index] {
        serving = this;
        pthread_setname_np(pthread_self(), "gradring-load");
        control_.worker(index).thread.store(static_cast<uint64_t>(pthread_self()), std::memory_order_relaxed);
        worker->serve([this] { return !quit_.load(std::memory_order_relaxed); });
        const auto told = thread_end_;
        alive_.fetch_sub(1, std::memory_order_release);
        futex_wake_all(alive_, Scope::kThreads);
        if (told) told();
      });
    }
  } catch (const std::exception&) {
    // The system refuses another thread. The pipeline goes on with those that it has (without any, the consumer fills
    // its batches itself), and asks again when the next pass starts.
    alive_.fetch_sub(1, std::memory_order_release);
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
  // No consumer will take the batches that are already filled, so their slots are free again.
  for (; next_ < allowed_; ++next_) leave_slot(control_.cell(cell_of(next_)).slot);
  next_ = allowed_ = 0;
  left_at_ = 0;
  if (options_.workers == 0) return;
  set_active(tuner_.active());
  for (uint32_t stripe = 0; stripe < control_.shape().stripes; ++stripe) control_.ring(stripe).open(0, 0);
  allow_more();
  RunBlock& run = control_.run();
  run.order = order;
  run.end = end_ * control_.shape().parts;
  run.skip = skip;
  start_threads();
  run.turn.publish((run.turn.value() + 1) % RunBlock::kQuit);
  // If another thread has closed the pipeline since, start has opened the rings again: close them.
  if (closed()) stop();
}

void Pipeline::choose_stores() noexcept {
  const bool streaming = slots_bytes(ahead(), slots_->stride()) > kCachedBytes || tuner_.streaming();
  control_.run().streaming.store(streaming, std::memory_order_relaxed);
}

bool Pipeline::parked(Deadline deadline) noexcept {
  const uint32_t turn = control_.run().turn.value();
  const auto workers = options_.processes ? options_.workers : static_cast<uint32_t>(threads_->size());
  for (uint32_t w = 0; w < workers; ++w) {
    for (;;) {
      const uint32_t done = control_.worker(w).done.value();
      if (done == turn) break;
      const Deadline slice = std::min(deadline, deadline_in(std::chrono::milliseconds(50)));
      if (control_.worker(w).done.wait_change(done, slice)) continue;
      // A dead process touches no slot any more. In the next run, the consumer notices the death when it waits for this
      // worker.
      if (options_.processes && dead(w)) control_.worker(w).done.publish(turn);
      if (Clock::now() >= deadline) return false;
    }
  }
  return true;
}

void Pipeline::set_active(uint32_t count) noexcept {
  control_.run().from.store(allowed_, std::memory_order_relaxed);
  tell_active(count);
}

void Pipeline::tell_active(uint32_t count) noexcept {
  active_.store(count, std::memory_order_relaxed);
  const uint32_t turn = (active_turn_.fetch_add(1, std::memory_order_relaxed) + 1) & 0x7fff;
  control_.run().active.publish(turn << 16 | count);
}

void Pipeline::stop() noexcept {
  if (forked()) return;  // the rings belong to the parent, which still uses them
  for (uint32_t stripe = 0; stripe < control_.shape().stripes; ++stripe) control_.ring(stripe).close();
  tell_active(active());  // wakes the workers that rest
}

void Pipeline::close() noexcept {
  closed_.store(true, std::memory_order_release);
  stop();
}

uint32_t Pipeline::held() const noexcept {
  const uint32_t own =
      (options_.workers ? static_cast<uint32_t>(allowed_ - next_) : 0) + reserved_ + (has_spare_ ? 1 : 0);
  const uint32_t taken = slots_->taken();
  return taken > own ? taken - own : 0;
}

bool Pipeline::dead(uint32_t stripe) const noexcept {
  if (pidfds_[stripe] < 0) return false;
  pollfd descriptor{pidfds_[stripe], POLLIN, 0};
  return poll(&descriptor, 1, 0) == 1;
}

int Pipeline::dead_stripe() const noexcept {
  for (uint32_t stripe = 0; stripe < pidfds_.size(); ++stripe) {
    if (dead(stripe)) return static_cast<int>(stripe);
  }
  return -1;
}

void Pipeline::recover_stripe(uint32_t stripe, bool restart) noexcept {
  pidfds_[stripe] = -1;
  control_.ring(stripe).recover(next_);
  RunBlock& run = control_.run();
  const uint32_t turn = run.turn.value();
  WorkerBlock& worker = control_.worker(stripe);
  worker.ticket.store(-1, std::memory_order_relaxed);
  // If the dead worker was parked, its successor is parked too. Otherwise the successor continues the run.
  if (worker.done.value() == turn) return;
  worker.done.publish(restart ? (turn + RunBlock::kQuit - 1) % RunBlock::kQuit : turn);
}

}  // namespace gradring
