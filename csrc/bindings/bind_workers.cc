// Bindings of the workers of an asynchronous training, on threads of this process.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/engine_data.h"
#include "bindings/engines.h"
#include "bindings/feed.h"
#include "program/async/workers.h"

namespace gradring {

namespace {

std::vector<Arenas::Memory> memories_from(const ArenaList& given) {
  std::vector<Arenas::Memory> memories;
  arenas_from(given);  // checks kinds and memory
  for (const auto& [name, kind, memory] : given)
    memories.push_back({name, kind_from_name(kind), memory->data(), static_cast<int64_t>(memory->size()), memory});
  return memories;
}

// The workers of an engine. They continue the engine's counts.
class PyWorkers {
 public:
  PyWorkers(Engine& engine, const ArenaList& arenas, int workers, int lanes, int64_t staleness)
      : engine_(engine),
        workers_(memories_from(arenas), with_lanes(engine.options(), lanes), at_least_one(workers), staleness) {}

  Engine& engine() { return engine_; }
  Workers& engines() { return workers_; }

 private:
  static int at_least_one(int workers) {
    if (workers < 1) throw Error(Code::kInvalidArgument, "[Workers] workers must be at least 1");
    return workers;
  }

  Engine& engine_;
  Workers workers_;
};

py::dict counts_of(Workers& workers) {
  const SharedParameters::Totals totals = workers.parameters().totals();
  const Workers::Staleness staleness = workers.staleness();
  py::dict out;
  out["updates"] = workers.parameters().version();
  out["lost"] = totals.lost;
  out["counted"] = totals.counted;
  out["retried"] = totals.retried;
  out["staleness"] = std::vector<uint64_t>(staleness.updates.begin(), staleness.updates.end());
  out["most_stale"] = staleness.most;
  out["waits"] = staleness.waits;
  return out;
}

}  // namespace

void bind_workers(py::module_& m) {
  py::class_<SharedView, Resource, std::shared_ptr<SharedView>>(
      m, "SharedView", "The shared parameters of an asynchronous training, as one worker sees them.");

  py::class_<PyWorkers> workers(m, "Workers",
                                "Workers that update an engine's parameters asynchronously, on threads of their own.");
  define_engines(workers, "worker");
  workers
      .def(py::init<Engine&, const ArenaList&, int, int, int64_t>(), py::arg("engine"), py::arg("arenas"),
           py::arg("workers"), py::arg("lanes"), py::arg("staleness"), py::keep_alive<1, 2>(),
           "Each worker gets `lanes` threads. `staleness` is the bound, and -1 means none.")
      .def(
          "view", [](PyWorkers& p, int worker) { return p.engines().view(worker); }, py::arg("worker"))
      .def("counts", [](PyWorkers& p) { return counts_of(p.engines()); })
      .def(
          "force_collisions",
          [](PyWorkers& p, double seconds) {
            const EngineGuard guard(p.engine(), false);
            const auto patience = std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
            p.engines().parameters().force_collisions(patience, seconds > 0 ? 1 : 16);
          },
          py::arg("seconds"),
          "For tests: each worker waits between its loads and its stores until all have loaded, or for this long, and "
          "looks at what every store overwrites. 0 seconds: no more.")
      .def(
          "set_arenas",
          [](PyWorkers& p, const ArenaList& given) {
            const EngineGuard guard(p.engine(), false);
            p.engines().set_arenas(memories_from(given));
          },
          py::arg("arenas"), "Use other arenas, and forget all programs.")
      .def(
          "chunk",
          [](PyWorkers& p, PyFeed& feed, const RateArray& rates, int64_t most_steps, double seconds, bool weighted) {
            const EngineGuard guard(p.engine(), true);
            ChunkOptions options = options_for(p.engine(), true, rates, most_steps, seconds);
            options.weighted = weighted;
            Totals totals;
            int64_t failed = -1;
            ChunkResult result;
            {
              const GilRelease release;
              result = p.engines().chunk(feed.feed(), options, &p.engine().state(), &totals, &failed);
            }
            p.engine().totals().add(totals);
            py::dict told = result_of(result, feed);
            if (failed >= 0) told["batch"] = failed;
            return py::make_tuple(told, totals_of(totals));
          },
          py::arg("feed"), py::arg("rates"), py::arg("most_steps"), py::arg("seconds"), py::arg("weighted") = false,
          "Train until the time is up, a limit is reached or the epoch ends. After a fault, `batch` is how many "
          "batches of this run came before the one with the fault.");
}

}  // namespace gradring
