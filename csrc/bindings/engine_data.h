// What the bindings of an engine and of replicas share: modes, options and results as plain Python data.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/feed.h"
#include "bindings/gil.h"
#include "bindings/step_fast_path.h"
#include "program/engine.h"
#include "runtime/arena.h"

namespace gradring {

Mode mode_from_name(const std::string& name);

// Occupies the engine, which serves one thread at a time, as long as this object lives.
class EngineGuard {
 public:
  EngineGuard(Engine& engine, bool writes) : engine_(engine) { enter_or_throw(engine, writes); }
  ~EngineGuard() { engine_.leave(); }
  EngineGuard(const EngineGuard&) = delete;
  EngineGuard& operator=(const EngineGuard&) = delete;

 private:
  Engine& engine_;
};

py::dict result_of(const ChunkResult& result);                // throws the exception for its status
py::dict result_of(const ChunkResult& result, PyFeed& feed);  // the same for a run that read this feed
py::dict totals_of(const Totals& totals);

// Each arena is (name, kind, memory); kind is param, grad or state.
using ArenaList = std::vector<std::tuple<std::string, std::string, std::shared_ptr<SharedArena>>>;
Arenas arenas_from(const ArenaList& given);

using RateArray = py::array_t<double, py::array::c_style>;

// Completes an engine's own options. most_steps is -1 for no limit, and seconds is 0 for no deadline. The options point into
// `rates`.
ChunkOptions options_for(ChunkOptions options, bool train, const RateArray& rates, int64_t most_steps, double seconds);
inline ChunkOptions options_for(const Engine& engine, bool train, const RateArray& rates, int64_t most_steps,
                                double seconds) {
  return options_for(engine.chunk_options(), train, rates, most_steps, seconds);
}

void bind_replicas(py::module_& m);
void bind_workers(py::module_& m);

}  // namespace gradring
