#include "program/replicas.h"

#include <algorithm>
#include <utility>

namespace gradring {

// The batches of a run, which replica 0 takes from the source for all.
struct Replicas::Batches {
  struct Turn {
    ChunkEnd end = ChunkEnd::kSteps;  // any other code is the reason why there is no batch
    Status status;
    Batch batch;
    std::atomic<int> holders{0};
  };

  Feed& feed;
  Deadline deadline;
  const Replicas& replicas;
  Mode mode;
  Turn turns[2];  // two turns, which alternate; see Share::next
  Signal told;    // twice the number of turns, plus one once there are no more
  uint32_t count = 0;
  int64_t samples = 0;  // how many samples all batches so far had
  Batch last;

  // Publishes the next turn. Replica 0 calls this.
  void prepare(uint32_t number) noexcept {
    Turn& turn = turns[number & 1];
    take(&turn, number > 0);
    turn.holders.store(replicas.size(), std::memory_order_relaxed);
    count = number + 1;
    told.publish(count << 1);
  }
  void close() noexcept { told.publish(count << 1 | 1); }

  // Waits for a turn. Returns null if replica 0 has left without one.
  Turn* await(uint32_t number) noexcept {
    for (;;) {
      const uint32_t now = told.value();
      if (now >> 1 > number) return &turns[number & 1];
      if (now & 1) return nullptr;
      told.wait_change(now);
    }
  }

 private:
  void take(Turn* turn, bool later) noexcept {
    turn->end = ChunkEnd::kTime;
    if (later && Clock::now() >= deadline) return;
    turn->end = feed.fetch(deadline, &turn->status);
    if (turn->end != ChunkEnd::kSteps) return;
    if (!replicas.ready(mode, feed.waiting.rows)) {
      turn->end = ChunkEnd::kProgram;
      return;
    }
    turn->batch = last = feed.waiting;
    feed.has_waiting = false;
    samples += std::max<int64_t>(last.rows, 0);
  }
};

// The source of one replica: its rows of each batch.
//
// Turn k + 2 reuses the memory of turn k. Replica 0 begins it after step k + 1, in which all replicas have met, and a
// replica releases batch k before step k + 1.
class Replicas::Share final : public BatchSource {
 public:
  Share(Batches& all, int replica) noexcept : all_(all), replica_(replica) {}

  Status next(Batch* batch, Deadline) noexcept override {
    const uint32_t number = number_++;
    if (replica_ == 0) all_.prepare(number);
    const Batches::Turn* const turn = all_.await(number);
    if (turn == nullptr) return {Code::kTimeout, "[replicas] replica 0 has left"};
    end_ = turn->end;
    switch (turn->end) {
      case ChunkEnd::kSteps: break;
      case ChunkEnd::kError: return turn->status;
      case ChunkEnd::kEpoch: batch->rows = 0; return {};
      default: return {Code::kTimeout, "[replicas] the run ends here"};
    }
    const std::vector<int64_t>& row_bytes = all_.replicas.row_bytes_;
    const Range rows = all_.replicas.own_rows(turn->batch.rows, replica_);
    *batch = turn->batch;
    for (size_t i = 0; i < row_bytes.size(); ++i) {
      const auto* const field = static_cast<const std::byte*>(batch->fields[i]);
      if (field != nullptr) batch->fields[i] = field + rows.begin * row_bytes[i];
    }
    if (batch->samples != nullptr) batch->samples += rows.begin;
    batch->position += rows.begin;
    batch->whole_rows = turn->batch.rows;  // and `rows` too: by them a replica finds its program
    batch->slot = number & 1;
    return {};
  }

  // The lanes of all replicas together fill the batch. The division of rows among lanes does not depend on how many
  // lanes a replica uses.
  void fill(const Lane& lane, const Batch& batch) noexcept override {
    const int count = all_.replicas.size() * lane.count;
    all_.feed.source->fill(Lane{lane.team, replica_ * lane.count + lane.index, count, lane.seat},
                           all_.turns[batch.slot].batch);
  }

  void release(const Batch& batch) noexcept override {
    Batches::Turn& turn = all_.turns[batch.slot];
    if (turn.holders.fetch_sub(1, std::memory_order_acq_rel) == 1) all_.feed.source->release(turn.batch);
  }

  ChunkEnd end() const noexcept { return end_; }  // why the last turn had no batch

 private:
  Batches& all_;
  int replica_;
  uint32_t number_ = 0;
  ChunkEnd end_ = ChunkEnd::kSteps;
};

Replicas::Replicas(const Arenas& arenas, const EngineOptions& options, ReplicaMeetings meetings)
    : meetings_(std::move(meetings)), crew_(static_cast<int>(meetings_.of.size())), row_bytes_(Batch::kMaxFields) {
  for (size_t r = 0; r < meetings_.of.size(); ++r) engines_.push_back(std::make_unique<Engine>(arenas, options));
  results_.resize(engines_.size());
}

Replicas::~Replicas() = default;

Range Replicas::own_rows(int64_t rows, int replica) const noexcept {
  if (rows <= 0) return {0, 0};
  const int process = meetings_.process, processes = meetings_.processes;
  const Range own = rows_of(rows, process * size() + replica, processes * size());
  const int64_t first = rows_of(rows, process, processes).begin;
  return {own.begin - first, own.end - first};
}

void Replicas::set_arenas(const Arenas& arenas) {
  std::vector<Arenas> copies(engines_.size(), arenas);
  for (size_t r = 0; r < engines_.size(); ++r) engines_[r]->set_arenas(std::move(copies[r]));
}

void Replicas::clear() noexcept {
  for (const auto& engine : engines_) engine->clear();
}

Executor& Replicas::add(Mode mode, int64_t rows, int replica, const Program& program) {
  if (replica < 0 || replica >= size()) {
    throw Error(Code::kInvalidArgument,
                "[Replicas.add] replica is " + std::to_string(replica) + ": must be below " + std::to_string(size()));
  }
  Executor& added = engine(replica).add(mode, rows, program);
  const Range own = own_rows(rows, replica);
  for (const Buffer& buffer : program.buffers) {
    if (buffer.kind == BufferKind::kInput && own.end > own.begin)
      row_bytes_[static_cast<size_t>(buffer.offset)] = buffer.bytes / (own.end - own.begin);
  }
  return added;
}

bool Replicas::ready(Mode mode, int64_t rows) const noexcept {
  for (int r = 0; r < size(); ++r)
    if (engine(r).programs(mode).find(rows) == nullptr) return false;
  return true;
}

// Calls body(replica) for all replicas in parallel. The result is that of the replica that knows which row is at fault, if
// one does, or else of replica 0.
template <class Body>
int Replicas::run(const Body& body) noexcept {
  const int count = size();
  bool refused = false;
  meetings_.enter(meetings_.owner.get());
  crew_.run(count, [&](const Lane& lane) noexcept {
    if (lane.count != count) {  // the system has refused a thread
      if (lane.index == 0) refused = true;
      return;
    }
    results_[static_cast<size_t>(lane.index)] = body(lane.index);
    meetings_.leave(meetings_.owner.get(), lane.index);
  });
  if (refused) {
    results_[0] = {};
    results_[0].end = ChunkEnd::kError;
    results_[0].status = {Code::kUnavailable, "[replicas] the system has refused the threads of %d replicas", count};
    return 0;
  }
  for (int r = 0; r < count; ++r)
    if (results_[static_cast<size_t>(r)].row >= 0) return r;
  return 0;
}

ChunkResult Replicas::chunk(Feed& feed, const ChunkOptions& options, Totals* totals) noexcept {
  Batches batches{feed, options.deadline, *this, mode_of(true, options.weighted), {}, Signal(), 0, 0, {}};
  ChunkOptions each = options;
  each.train = true;
  each.deadline = kNoDeadline;  // replica 0 checks the deadline for all
  ChunkEnd end = ChunkEnd::kSteps;
  Totals first;
  const int known = run([&](int r) noexcept {
    Share share(batches, r);
    Feed part{&share, {}, false};
    Totals mine;
    const ChunkResult result = engine(r).chunk(true, part, each, &mine);
    if (r == 0) {
      batches.close();
      first = mine;
      end = share.end();
    }
    return result;
  });
  ChunkResult result = results_[static_cast<size_t>(known)];
  if (result.end == ChunkEnd::kTime && end == ChunkEnd::kProgram) {
    result.end = ChunkEnd::kProgram;
    result.rows = feed.waiting.rows;
  }
  if (result.fault != Fault::kNone) {
    if (result.row >= 0) result.row += own_rows(batches.last.rows, known).begin;
    result.position = batches.last.position;
    result.rows = batches.last.rows;
    batches.samples -= std::max<int64_t>(batches.last.rows, 0);  // do not count a batch that changed nothing
  }
  first.samples = batches.samples;
  totals->add(first);
  return result;
}

ChunkResult Replicas::flush(int64_t rows, const ChunkOptions& options, Totals* totals) noexcept {
  const Mode mode = mode_of(true, options.weighted);
  const int known = run([&](int r) noexcept {
    Engine& mine = engine(r);
    Executor* const executor = mine.programs(mode).find(rows);
    Totals own;
    const ChunkResult result = flush_updates(mine.team(), *executor, options, &mine.state(), &own);
    if (r == 0) totals->updates += own.updates, totals->gradient_norm = own.gradient_norm;
    return result;
  });
  return results_[static_cast<size_t>(known)];
}

}  // namespace gradring
