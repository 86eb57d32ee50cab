// Bindings of data-parallel replicas on threads of this process.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/engine_data.h"
#include "bindings/engines.h"
#include "bindings/feed.h"
#include "comm/thread_meeting.h"
#include "ops/reduce_update/meeting_resource.h"
#include "program/replicas.h"

namespace gradring {

namespace {

// The replicas of an engine. They continue the engine's counts.
class PyReplicas {
 public:
  PyReplicas(Engine& engine, const ArenaList& arenas, int replicas, int lanes)
      : engine_(engine),
        meetings_(std::make_shared<ThreadMeetings>(replicas)),
        replicas_(arenas_from(arenas), with_lanes(engine.options(), lanes), all_of(meetings_)) {}

  Engine& engine() { return engine_; }
  Replicas& engines() { return replicas_; }
  bool torn() const { return meetings_->torn(); }
  void mend() { meetings_->mend(); }

  std::shared_ptr<MeetingResource> meeting(int replica) {
    if (replica < 0 || replica >= meetings_->size()) throw py::index_error("[Replicas] there is no such replica");
    return std::make_shared<MeetingResource>(meetings_->of(replica), meetings_);
  }

  // Calls f with the engine's counts, and writes the new counts back to the engine.
  template <class F>
  ChunkResult run(const F& f) {
    if (torn()) {
      throw Error(Code::kInternal,
                  "[Trainer] the parameters are torn: some replicas have applied an update and others have not; load a "
                  "checkpoint");
    }
    for (int r = 0; r < replicas_.size(); ++r) {
      replicas_.engine(r).state() = engine_.state();
      replicas_.engine(r).set_seed(engine_.options().seed);
    }
    ChunkResult result;
    {
      const GilRelease release;
      result = f();
    }
    engine_.state() = replicas_.engine(0).state();
    return result;
  }

 private:
  static ReplicaMeetings all_of(const std::shared_ptr<ThreadMeetings>& meetings) {
    ReplicaMeetings all;
    for (int r = 0; r < meetings->size(); ++r) all.of.push_back(&meetings->of(r));
    all.enter = [](void* owner) noexcept { static_cast<ThreadMeetings*>(owner)->enter(); };
    all.leave = [](void* owner, int replica) noexcept { static_cast<ThreadMeetings*>(owner)->leave(replica); };
    all.owner = meetings;
    return all;
  }

  Engine& engine_;
  std::shared_ptr<ThreadMeetings> meetings_;
  Replicas replicas_;
};

}  // namespace

void bind_replicas(py::module_& m) {
  py::class_<MeetingResource, Resource, std::shared_ptr<MeetingResource>>(
      m, "Meeting", "The meeting at which the steps of one replica wait for those of the others.");

  py::class_<PyReplicas> replicas(m, "Replicas", "Data-parallel replicas of an engine, on threads of their own.");
  define_engines(replicas, "replica");
  replicas
      .def(py::init<Engine&, const ArenaList&, int, int>(), py::arg("engine"), py::arg("arenas"), py::arg("replicas"),
           py::arg("lanes"), py::keep_alive<1, 2>(), "Make the replicas. Each has a team of that many lanes.")
      .def_property_readonly("torn", &PyReplicas::torn,
                             "Whether some replicas have applied an update that others have not applied.")
      .def("mend", &PyReplicas::mend,
           "Say that the caller has replaced all parameters and the optimizer's state, so that they are torn no more.")
      .def("meeting", &PyReplicas::meeting, py::arg("replica"))
      .def(
          "set_arenas",
          [](PyReplicas& p, const ArenaList& given) {
            const EngineGuard guard(p.engine(), false);
            p.engines().set_arenas(arenas_from(given));
          },
          py::arg("arenas"), "Replace the arenas. The replicas forget all programs.")
      .def(
          "chunk",
          [](PyReplicas& p, PyFeed& feed, const RateArray& rates, int64_t most_steps, double seconds, bool weighted) {
            const EngineGuard guard(p.engine(), true);
            ChunkOptions options = options_for(p.engine(), true, rates, most_steps, seconds);
            options.weighted = weighted;
            Totals totals;
            const ChunkResult result = p.run([&] { return p.engines().chunk(feed.feed(), options, &totals); });
            p.engine().totals().add(totals);
            return py::make_tuple(result_of(result, feed), totals_of(totals));
          },
          py::arg("feed"), py::arg("rates"), py::arg("most_steps"), py::arg("seconds"), py::arg("weighted") = false,
          "Train for that many seconds, for most_steps steps or until the epoch ends.")
      .def(
          "flush",
          [](PyReplicas& p, int64_t rows, const RateArray& rates, bool weighted) {
            const EngineGuard guard(p.engine(), true);
            if (!p.engines().ready(mode_of(true, weighted), rows))
              throw Error(Code::kInvalidArgument, "[Replicas.flush] there are no programs for this batch");
            ChunkOptions options = options_for(p.engine(), true, rates, -1, 0);
            options.weighted = weighted;
            Totals totals;
            const ChunkResult result = p.run([&] { return p.engines().flush(rows, options, &totals); });
            p.engine().totals().updates += totals.updates;
            return result_of(result);
          },
          py::arg("rows"), py::arg("rates"), py::arg("weighted") = false,
          "Update the parameters with the gradients of an incomplete group of micro-batches.");
}

}  // namespace gradring
