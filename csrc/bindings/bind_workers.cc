// Bindings of the workers of an asynchronous training, on threads of this process.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/engine_data.h"
#include "bindings/feed.h"
#include "bindings/program_data.h"
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
  Workers& workers() { return workers_; }
  Engine& engine_of(int worker) {
    if (worker < 0 || worker >= workers_.size()) throw py::index_error("[Workers] there is no such worker");
    return workers_.engine(worker);
  }

 private:
  static EngineOptions with_lanes(EngineOptions options, int lanes) {
    options.lanes = lanes;
    return options;
  }
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

  py::class_<PyWorkers>(m, "Workers",
                        "Workers that update an engine's parameters asynchronously, on threads of their own.")
      .def(py::init<Engine&, const ArenaList&, int, int, int64_t>(), py::arg("engine"), py::arg("arenas"),
           py::arg("workers"), py::arg("lanes"), py::arg("staleness"), py::keep_alive<1, 2>(),
           "Each worker gets `lanes` threads. `staleness` is the bound, and -1 means none.")
      .def_property_readonly("size", [](PyWorkers& p) { return p.workers().size(); })
      .def(
          "view", [](PyWorkers& p, int worker) { return p.workers().view(worker); }, py::arg("worker"))
      .def("counts", [](PyWorkers& p) { return counts_of(p.workers()); })
      .def(
          "force_collisions",
          [](PyWorkers& p, double seconds) {
            const EngineGuard guard(p.engine(), false);
            const auto patience = std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
            p.workers().parameters().force_collisions(patience, seconds > 0 ? 1 : 16);
          },
          py::arg("seconds"),
          "For tests: each worker waits between its loads and its stores until all have loaded, or for this long, and "
          "looks at what every store overwrites. 0 seconds: no more.")
      .def(
          "set_arenas",
          [](PyWorkers& p, const ArenaList& given) {
            const EngineGuard guard(p.engine(), false);
            p.workers().set_arenas(memories_from(given));
          },
          py::arg("arenas"), "Use other arenas, and forget all programs.")
      .def(
          "clear",
          [](PyWorkers& p) {
            const EngineGuard guard(p.engine(), false);
            p.workers().clear();
          },
          "Forget all programs.")
      .def(
          "trace",
          [](PyWorkers& p, bool on) {
            const EngineGuard guard(p.engine(), false);
            for (int w = 0; w < p.workers().size(); ++w) p.workers().engine(w).trace(on);
          },
          py::arg("on"))
      .def(
          "has",
          [](PyWorkers& p, const std::string& mode, int64_t rows, int worker) {
            return p.engine_of(worker).programs(mode_from_name(mode)).find(rows) != nullptr;
          },
          py::arg("mode"), py::arg("rows"), py::arg("worker"),
          "Return whether a worker has a program for batches of this number of rows.")
      .def(
          "add",
          [](PyWorkers& p, const std::string& mode, int64_t rows, int worker, const py::list& arenas,
             const py::list& buffers, const py::list& instructions,
             const std::vector<std::shared_ptr<Resource>>& resources, int fields, int outputs,
             const py::bytes& constants) {
            const EngineGuard guard(p.engine(), false);
            Program program = program_from(arenas, buffers, instructions, resources, constants);
            program.fields = fields;
            program.outputs = outputs;
            const Executor& executor = p.workers().add(mode_from_name(mode), rows, worker, program);
            std::vector<bool> barriers;
            for (size_t i = 0; i < executor.size(); ++i) barriers.push_back(executor.barrier_before(i));
            return barriers;
          },
          py::arg("mode"), py::arg("rows"), py::arg("worker"), py::arg("arenas"), py::arg("buffers"),
          py::arg("instructions"), py::arg("resources"), py::arg("fields"), py::arg("outputs"),
          py::arg("constants") = py::bytes(),
          "Add a program of one worker. Return, for each instruction, whether a barrier comes before it.")
      .def(
          "lanes",
          [](PyWorkers& p, const std::string& mode, int64_t rows) {
            const Executor* executor = p.workers().engine(0).programs(mode_from_name(mode)).find(rows);
            return executor == nullptr ? 0 : executor->lanes();
          },
          py::arg("mode"), py::arg("rows"),
          "Return the number of lanes that run this program of worker 0, or 0 if there is no such program.")
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
              result = p.workers().chunk(feed.feed(), options, &p.engine().state(), &totals, &failed);
            }
            p.engine().add_totals(totals);
            py::dict told = result_of(result, feed);
            if (failed >= 0) told["batch"] = failed;
            return py::make_tuple(told, totals_of(totals));
          },
          py::arg("feed"), py::arg("rates"), py::arg("most_steps"), py::arg("seconds"), py::arg("weighted") = false,
          "Train until the time is up, a limit is reached or the epoch ends. After a fault, `batch` is how many "
          "batches "
          "of this run came before the one with the fault.");
}

}  // namespace gradring
