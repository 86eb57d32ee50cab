// Bindings of data-parallel replicas on threads of this process.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/engine_data.h"
#include "bindings/feed.h"
#include "bindings/program_data.h"
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
  Replicas& replicas() { return replicas_; }
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
  static EngineOptions with_lanes(EngineOptions options, int lanes) {
    options.lanes = lanes;
    return options;
  }

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

  py::class_<PyReplicas>(m, "Replicas", "Data-parallel replicas of an engine, on threads of their own.")
      .def(py::init<Engine&, const ArenaList&, int, int>(), py::arg("engine"), py::arg("arenas"), py::arg("replicas"),
           py::arg("lanes"), py::keep_alive<1, 2>(), "Make the replicas. Each has a team of that many lanes.")
      .def_property_readonly("size", [](PyReplicas& p) { return p.replicas().size(); })
      .def_property_readonly("torn", &PyReplicas::torn,
                             "Whether some replicas have applied an update that others have not applied.")
      .def("mend", &PyReplicas::mend,
           "Say that the caller has replaced all parameters and the optimizer's state, so that they are torn no more.")
      .def("meeting", &PyReplicas::meeting, py::arg("replica"))
      .def(
          "set_arenas",
          [](PyReplicas& p, const ArenaList& given) {
            const EngineGuard guard(p.engine(), false);
            p.replicas().set_arenas(arenas_from(given));
          },
          py::arg("arenas"), "Replace the arenas. The replicas forget all programs.")
      .def(
          "clear",
          [](PyReplicas& p) {
            const EngineGuard guard(p.engine(), false);
            p.replicas().clear();
          },
          "Forget all programs.")
      .def(
          "trace",
          [](PyReplicas& p, bool on) {
            const EngineGuard guard(p.engine(), false);
            for (int r = 0; r < p.replicas().size(); ++r) p.replicas().engine(r).trace(on);
          },
          py::arg("on"))
      .def(
          "has",
          [](PyReplicas& p, const std::string& mode, int64_t rows, int replica) {
            return p.replicas().engine(replica).programs(mode_from_name(mode)).find(rows) != nullptr;
          },
          py::arg("mode"), py::arg("rows"), py::arg("replica"),
          "Return whether a replica has a program for batches of this number of rows.")
      .def(
          "add",
          [](PyReplicas& p, const std::string& mode, int64_t rows, int replica, const py::list& arenas,
             const py::list& buffers, const py::list& instructions,
             const std::vector<std::shared_ptr<Resource>>& resources, int fields, int outputs,
             const py::bytes& constants) {
            const EngineGuard guard(p.engine(), false);
            Program program = program_from(arenas, buffers, instructions, resources, constants);
            program.fields = fields;
            program.outputs = outputs;
            const Executor& executor = p.replicas().add(mode_from_name(mode), rows, replica, program);
            std::vector<bool> barriers;
            for (size_t i = 0; i < executor.size(); ++i) barriers.push_back(executor.barrier_before(i));
            return barriers;
          },
          py::arg("mode"), py::arg("rows"), py::arg("replica"), py::arg("arenas"), py::arg("buffers"),
          py::arg("instructions"), py::arg("resources"), py::arg("fields"), py::arg("outputs"),
          py::arg("constants") = py::bytes(),
          "Add the program of one replica for batches of this number of rows. Return, for each instruction, whether a "
          "barrier comes before it.")
      .def(
          "lanes",
          [](PyReplicas& p, const std::string& mode, int64_t rows) {
            const Executor* executor = p.replicas().engine(0).programs(mode_from_name(mode)).find(rows);
            return executor == nullptr ? 0 : executor->lanes();
          },
          py::arg("mode"), py::arg("rows"),
          "Return the number of lanes that run this program of replica 0, or 0 if there is no such program.")
      .def(
          "chunk",
          [](PyReplicas& p, PyFeed& feed, const RateArray& rates, int64_t most_steps, double seconds, bool weighted) {
            const EngineGuard guard(p.engine(), true);
            ChunkOptions options = options_for(p.engine(), true, rates, most_steps, seconds);
            options.weighted = weighted;
            Totals totals;
            const ChunkResult result = p.run([&] { return p.replicas().chunk(feed.feed(), options, &totals); });
            p.engine().add_totals(totals);
            return py::make_tuple(result_of(result, feed), totals_of(totals));
          },
          py::arg("feed"), py::arg("rates"), py::arg("most_steps"), py::arg("seconds"), py::arg("weighted") = false,
          "Train for that many seconds, for most_steps steps or until the epoch ends.")
      .def(
          "flush",
          [](PyReplicas& p, int64_t rows, const RateArray& rates, bool weighted) {
            const EngineGuard guard(p.engine(), true);
            if (!p.replicas().ready(mode_of(true, weighted), rows))
              throw Error(Code::kInvalidArgument, "[Replicas.flush] there are no programs for this batch");
            ChunkOptions options = options_for(p.engine(), true, rates, -1, 0);
            options.weighted = weighted;
            Totals totals;
            const ChunkResult result = p.run([&] { return p.replicas().flush(rows, options, &totals); });
            p.engine().totals().updates += totals.updates;
            return result_of(result);
          },
          py::arg("rows"), py::arg("rates"), py::arg("weighted") = false,
          "Update the parameters with the gradients of an incomplete group of micro-batches.");
}

}  // namespace gradring
