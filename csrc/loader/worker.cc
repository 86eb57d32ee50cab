#include "loader/worker.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "runtime/clock.h"
#include "runtime/team.h"
#include "runtime/trace.h"

namespace gradring {

namespace {

constexpr int64_t kShortWait = 200'000;  // ns
constexpr uint32_t kShortYields = 200;
constexpr int64_t kMemoryEvery = 20'000'000;  // nanoseconds between two readings of /proc, each of which takes 10 us

uint64_t resident_bytes() noexcept {
  unsigned long long pages = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  if (std::fscanf(file, "%llu %llu", &pages, &resident) != 2) resident = 0;
  std::fclose(file);
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// Whether on_error="skip" may leave the sample out. It may not if the run has ended, or if the function raised something that is
// not an Exception, as Ctrl-C does.
bool may_skip(Code code) noexcept { return code != Code::kClosed && code != kPythonExit; }

// Stops filling a batch once the consumer has left the run, because no consumer will take the batch.
class RunLeft final : public Stop {
 public:
  explicit RunLeft(const Ring<>& ring) noexcept : ring_(ring) {}
  bool asked() const noexcept override { return ring_.closed(); }

 private:
  const Ring<>& ring_;
};

}  // namespace

Filler::Filler(std::shared_ptr<const Source> source, int64_t batch_size)
    : source_(std::move(source)), layout_(source_->fields(), batch_size) {
  const size_t fields = source_->fields().size();
  if (fields == 0 || fields > kMostFields) {
    throw Error(Code::kInvalidArgument,
                "[loader] a source has 1 to " + std::to_string(kMostFields) + " fields, not " + std::to_string(fields));
  }
}

Status Filler::read(const Order& order, Range rows, std::byte* slot, std::byte* scratch, int64_t* failed,
                    const Stop* stop, PartTimes* times, bool streaming) const noexcept {
  std::byte* fields[kMostFields];
  for (size_t i = 0; i < layout_.offsets.size(); ++i) {
    fields[i] = slot + layout_.offsets[i] + static_cast<size_t>(rows.begin) * layout_.row_bytes[i];
  }
  ReadRequest request;
  request.samples = reinterpret_cast<const int64_t*>(slot) + rows.begin;
  request.rows = rows.end - rows.begin;
  request.fields = fields;
  request.scratch = scratch;
  request.seed = order.options().seed;
  request.epoch = order.options().epoch;
  request.times = times;
  request.stop = stop;
  request.streaming = streaming;
  return source_->read(request, failed);
}

void Filler::fill(const Order& order, int64_t batch, Range range, bool skip, std::byte* slot, std::byte* scratch,
                  PartBlock* part, WorkerBlock* block, const Stop* stop, bool streaming) const noexcept {
  auto* samples = reinterpret_cast<int64_t*>(slot);
  part->rows = range.end - range.begin;
  part->skipped = 0;
  part->failed_sample = -1;
  part->status = {};
  if (part->rows == 0) return;
  order.samples(batch, range.begin, range.end - range.begin, samples + range.begin);
  int64_t failed = -1;
  if (batch % kTimedEvery == kTimedFirst) {
    PartTimes times;
    const int64_t begin = monotonic_ns();
    part->status = read(order, range, slot, scratch, &failed, stop, &times, streaming);
    block->timed_ns.fetch_add(static_cast<uint64_t>(monotonic_ns() - begin), std::memory_order_relaxed);
    for (size_t i = 0; i < PartTimes::kMost; ++i) {
      if (times.ns[i] > 0) block->part_ns[i].fetch_add(times.ns[i], std::memory_order_relaxed);
    }
  } else {
    part->status = read(order, range, slot, scratch, &failed, stop, nullptr, streaming);
  }
  if (part->status.ok()) return;
  if (skip && may_skip(part->status.code())) {
    read_one_by_one(order, range, slot, scratch, part, stop);
  } else {
    part->rows = 0;
    if (failed >= 0 && failed < range.end - range.begin) part->failed_sample = samples[range.begin + failed];
  }
}

void Filler::read_one_by_one(const Order& order, Range range, std::byte* slot, std::byte* scratch, PartBlock* part,
                             const Stop* stop) const noexcept {
  auto* samples = reinterpret_cast<int64_t*>(slot);
  int64_t to = range.begin;
  for (int64_t from = range.begin; from < range.end; ++from) {
    samples[to] = samples[from];
    int64_t failed = -1;
    const Status status = read(order, {to, to + 1}, slot, scratch, &failed, stop);
    if (status.ok()) {
      ++to;
    } else if (!may_skip(status.code())) {
      part->rows = 0;
      part->status = status;
      part->failed_sample = status.code() == Code::kClosed ? -1 : samples[to];
      return;
    } else {
      ++part->skipped;
    }
  }
  part->rows = to - range.begin;
  part->status = {};
}

Worker::Worker(const Control& control, const Filler& filler, SlotMap& slots, uint32_t index)
    : control_(control),
      filler_(filler),
      slots_(slots),
      index_(index),
      stripe_(control.shape().stripes == 1 ? 0 : index),
      scratch_(filler.source().scratch_bytes()) {
  if (control.shape().parts > 1) announced_ = std::make_unique<int64_t[]>(filler.layout().offsets[0] / sizeof(int64_t));
}

void Worker::serve(const std::function<bool()>& go_on) noexcept {
  RunBlock& block = control_.run();
  WorkerBlock& self = control_.worker(index_);
  uint32_t seen = self.done.value();
  for (;;) {
    if (!block.turn.wait_change(seen, deadline_in(std::chrono::milliseconds(100)), {0, 0})) {
      if (!go_on()) return;
      continue;
    }
    seen = block.turn.value();
    if (seen == RunBlock::kQuit) return;
    run(seen);
    self.done.publish(seen);
    if (!go_on()) return;
  }
}

// Waits while the tuner lets this worker rest. Returns false if the run ends in the meantime. A worker with a stripe of its own first
// fills its share of the batches that were allowed while it was active.
bool Worker::may_claim(uint32_t number) noexcept {
  RunBlock& block = control_.run();
  for (;;) {
    const uint32_t active = block.active.value();
    if (index_ < (active & 0xffff)) return true;
    const Ring<> ring = control_.ring(stripe_);
    if (ring.closed() || block.turn.value() != number || ring.claimed() >= block.end) return false;
    if (control_.shape().stripes > 1 && ring.claimed() < block.from.load(std::memory_order_relaxed)) return true;
    block.active.wait_change(active, deadline_in(std::chrono::milliseconds(100)), {0, 0});
  }
}

void Worker::run(uint32_t number) noexcept {
  const RunBlock& block = control_.run();
  WorkerBlock& self = control_.worker(index_);
  Ring<> ring = control_.ring(stripe_);
  const Order order(block.order);
  int64_t idle_from = monotonic_ns();
  int64_t look_at_memory = 0;
  Patience patience = Ring<>::kProducer;
  while (may_claim(number)) {
    const uint64_t ticket = ring.claim();
    if (ticket >= block.end || ring.reserve(ticket, kNoDeadline, patience) != RingWait::kReady) return;
    const int64_t begin = monotonic_ns();
    // A wake-up takes longer than a short wait does. So a worker whose waits have been short yields for a while before it sleeps.
    patience.yields = begin - idle_from < kShortWait ? kShortYields : Ring<>::kProducer.yields;
    self.since_ns.store(begin, std::memory_order_relaxed);
    const auto batch = static_cast<int64_t>(ticket / control_.shape().parts);
    self.ticket.store(batch, std::memory_order_relaxed);
    const bool filled = fill(ticket, order);
    const int64_t end = monotonic_ns();
    if (trace_is_on.load(std::memory_order_relaxed)) trace_record("fill batch", begin, end, batch);
    self.ticket.store(-1, std::memory_order_relaxed);
    self.busy_ns.fetch_add(static_cast<uint64_t>(end - begin), std::memory_order_relaxed);
    self.wait_ns.fetch_add(static_cast<uint64_t>(begin - idle_from), std::memory_order_relaxed);
    if (watch_memory_ && end >= look_at_memory) {
      self.resident.store(resident_bytes(), std::memory_order_relaxed);
      look_at_memory = end + kMemoryEvery;
    }
    idle_from = end;
    // After a failure the consumer ends the run, so more batches of this stripe would be of no use.
    if (!filled) return;
  }
}

bool Worker::fill(uint64_t ticket, const Order& order) noexcept {
  const RunBlock& block = control_.run();
  Ring<> ring = control_.ring(stripe_);
  const ControlShape& shape = control_.shape();
  const CellBlock& cell = control_.cell(ring.slot(ticket) / shape.parts);
  PartBlock& part = control_.part(stripe_, ring.slot(ticket));
  const auto batch = static_cast<int64_t>(ticket / shape.parts);
  const auto piece = static_cast<int>(shape.stripes > 1 ? stripe_ : ticket % shape.parts);
  const auto pieces = static_cast<int>(cell.pieces);
  const Range range = piece < pieces ? split({nullptr, piece, pieces}, order.rows(batch)) : Range{};
  WorkerBlock& block_of = control_.worker(index_ == kConsumer ? 0 : index_);
  if (announced_ && piece == 0) {
    // A disk serves many requests at the same time faster than a few. So announce the next batch while this one is
    // read, and the first one too.
    for (int64_t soon = batch == 0 ? 0 : batch + 1; soon < std::min(batch + 2, order.batches()); ++soon) {
      order.samples(soon, 0, order.rows(soon), announced_.get());
      filler_.source().will_read(announced_.get(), order.rows(soon));
    }
  }
  const RunLeft left(ring);
  const bool streaming = block.streaming.load(std::memory_order_relaxed);
  if (std::byte* const slot = slots_.reach(cell.slot)) {
    filler_.fill(order, batch, range, block.skip, slot, scratch_.data(), &part, &block_of, &left, streaming);
  } else {
    part = {};
    part.status = Status(Code::kOutOfMemory, "[loader] a worker process has no addresses left for another batch");
  }
  if (index_ != kConsumer) block_of.rows.fetch_add(static_cast<uint64_t>(part.rows), std::memory_order_relaxed);
  const bool ok = part.status.ok();
  if (!ok && failed_ && part.status.code() != Code::kClosed) failed_(static_cast<uint64_t>(batch), part);
  ring.commit(ticket);
  return ok;
}

}  // namespace gradring
