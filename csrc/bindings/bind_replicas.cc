// Bindings of data-parallel replicas on threads of this process.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/engine_data.h"
#include "bindings/engines.h"
#include "bindings/feed.h"
#include "bindings/replicas.h"

namespace gradring {

void bind_replicas(py::module_& m) {
  py::class_<MeetingResource, Resource, std::shared_ptr<MeetingResource>>(
      m, "Meeting", "The meeting at which the steps of one replica wait for those of the others.");

  py::class_<PyReplicas> defined(m, "Replicas", "Data-parallel replicas of an engine, on threads of their own.");
  define_engines(defined, "replica");
  defined
      .def(py::init([](Engine& engine, const ArenaList& arenas, int replicas, int lanes, const py::object& ranks,
                       bool blocks) {
             if (ranks.is_none()) return std::make_unique<PyReplicas>(engine, arenas, replicas, lanes);
             auto meetings = hybrid_meetings(ranks, replicas);
             return std::make_unique<PyReplicas>(engine, arenas, lanes, std::move(meetings), blocks);
           }),
           py::arg("engine"), py::arg("arenas"), py::arg("replicas"), py::arg("lanes"), py::arg("ranks") = py::none(),
           py::arg("blocks") = false, py::keep_alive<1, 2>(),
           "Make the replicas. Each has a team of that many lanes. With `ranks`, whose processes all call this, they "
           "are "
           "ranks of one group, and `blocks` says that each batch is divided among all of them.")
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
