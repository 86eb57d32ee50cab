// The replicas of an engine, as the bindings of replicas and of ranks use them.
#pragma once

#include <memory>
#include <utility>

#include "bindings/bindings.h"
#include "bindings/engine_data.h"
#include "bindings/engines.h"
#include "comm/hybrid_meeting.h"
#include "comm/thread_meeting.h"
#include "ops/reduce_update/meeting_resource.h"
#include "program/replicas.h"

namespace gradring {

// The replicas of an engine. They continue the engine's counts. Those of a process among several run by Ranks.chunk and Ranks.flush.
class PyReplicas {
 public:
  PyReplicas(Engine& engine, const ArenaList& arenas, int replicas, int lanes)
      : engine_(engine),
        threads_(std::make_shared<ThreadMeetings>(replicas)),
        replicas_(arenas_from(arenas), with_lanes(engine.options(), lanes), all_of(threads_, replicas)) {}

  PyReplicas(Engine& engine, const ArenaList& arenas, int lanes, std::shared_ptr<HybridMeetings> meetings, bool blocks)
      : engine_(engine),
        hybrid_(std::move(meetings)),
        replicas_(arenas_from(arenas), with_lanes(engine.options(), lanes), among_processes(hybrid_, blocks)) {}

  Engine& engine() { return engine_; }
  Replicas& engines() { return replicas_; }
  bool torn() const { return hybrid_ ? hybrid_->processes().torn() : threads_->torn(); }
  void mend() { hybrid_ ? hybrid_->processes().mend() : threads_->mend(); }

  std::shared_ptr<MeetingResource> meeting(int replica) {
    if (replica < 0 || replica >= replicas_.size()) throw py::index_error("[Replicas] there is no such replica");
    if (hybrid_) return std::make_shared<MeetingResource>(hybrid_->of(replica), hybrid_);
    return std::make_shared<MeetingResource>(threads_->of(replica), threads_);
  }

  // Calls f with the engine's counts, and writes the new counts back to the engine.
  template <class F>
  ChunkResult counted(const F& f) noexcept {
    for (int r = 0; r < replicas_.size(); ++r) {
      replicas_.engine(r).state() = engine_.state();
      replicas_.engine(r).set_seed(engine_.options().seed);
    }
    const ChunkResult result = f();
    engine_.state() = replicas_.engine(0).state();
    return result;
  }

  // Takes one step on a batch, and adds to the engine's totals. `options` has the rates of one update.
  ChunkResult step(const Batch& batch, ChunkOptions options) noexcept {
    options.most_steps = 1;
    OneBatch source(batch);
    Feed feed{&source, {}, false};
    Totals totals;
    const ChunkResult result = counted([&] { return replicas_.chunk(feed, options, &totals); });
    engine_.totals().add(totals);
    return result;
  }

  template <class F>
  ChunkResult run(const F& f) {
    if (hybrid_) throw Error(Code::kInvalidArgument, "[Replicas] these replicas have peers: they run by Ranks");
    if (torn()) {
      throw Error(Code::kInternal,
                  "[Trainer] the parameters are torn: some replicas have applied an update and others have not; load a "
                  "checkpoint");
    }
    const GilRelease release;
    return counted(f);
  }

 private:
  template <class Meetings>
  static ReplicaMeetings all_of(const std::shared_ptr<Meetings>& meetings, int replicas) {
    ReplicaMeetings all;
    for (int r = 0; r < replicas; ++r) all.of.push_back(&meetings->of(r));
    all.enter = [](void* owner) noexcept { static_cast<Meetings*>(owner)->enter(); };
    all.leave = [](void* owner, int replica) noexcept { static_cast<Meetings*>(owner)->leave(replica); };
    all.owner = meetings;
    return all;
  }
  static ReplicaMeetings among_processes(const std::shared_ptr<HybridMeetings>& meetings, bool blocks) {
    ReplicaMeetings all = all_of(meetings, meetings->replicas());
    if (blocks) all.process = meetings->processes().rank(), all.processes = meetings->processes().size();
    return all;
  }

  // A source of the one batch of a step, whose rows lie where the caller's arrays are.
  class OneBatch final : public BatchSource {
   public:
    explicit OneBatch(const Batch& batch) noexcept : batch_(batch) {}
    Status next(Batch* batch, Deadline) noexcept override {
      *batch = std::exchange(batch_, Batch{});
      return {};
    }
    void fill(const Lane&, const Batch&) noexcept override {}
    void release(const Batch&) noexcept override {}

   private:
    Batch batch_;
  };

  Engine& engine_;
  std::shared_ptr<ThreadMeetings> threads_;
  std::shared_ptr<HybridMeetings> hybrid_;  // one of the two
  Replicas replicas_;
};

// The options of a step of the fast path, with the rates of one update.
inline ChunkOptions step_options(const Engine& engine, Mode mode, const double* rates, int64_t rate_columns) noexcept {
  ChunkOptions options = engine.chunk_options();
  options.weighted = mode == mode_of(true, true);
  options.rates = rates, options.rate_count = 1, options.rate_columns = rate_columns;
  return options;
}

// The meetings of so many replicas of each process of `ranks`, which all call it.
std::shared_ptr<HybridMeetings> hybrid_meetings(const py::object& ranks, int replicas);

}  // namespace gradring
