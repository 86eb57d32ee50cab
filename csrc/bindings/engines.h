// What the bindings of several engines over one set of parameters have in common: those of replicas, and those of workers.
#pragma once

#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/engine_data.h"
#include "bindings/program_data.h"
#include "program/engine.h"

namespace gradring {

// An engine's options with another number of lanes.
inline EngineOptions with_lanes(EngineOptions options, int lanes) {
  options.lanes = lanes;
  return options;
}

// An engine's program for batches of this number of rows, or null.
inline const Executor* program_of(Engine& engine, const std::string& mode, int64_t rows) {
  return engine.programs(mode_from_name(mode)).find(rows);
}

// Defines the methods for programs. P has engine(), whose guard they take, and engines(), which has size, engine, add and clear.
// `one` is what P calls one of them; it must live as long as the module.
template <class P>
void define_engines(py::class_<P>& bound, const char* one) {
  bound.def_property_readonly("size", [](P& p) { return p.engines().size(); })
      .def(
          "clear",
          [](P& p) {
            const EngineGuard guard(p.engine(), false);
            p.engines().clear();
          },
          "Forget all programs.")
      .def(
          "trace",
          [](P& p, bool on) {
            const EngineGuard guard(p.engine(), false);
            for (int i = 0; i < p.engines().size(); ++i) p.engines().engine(i).trace(on);
          },
          py::arg("on"))
      .def(
          "has",
          [one](P& p, const std::string& mode, int64_t rows, int number) {
            if (number < 0 || number >= p.engines().size())
              throw py::index_error("there is no such " + std::string(one));
            return program_of(p.engines().engine(number), mode, rows) != nullptr;
          },
          py::arg("mode"), py::arg("rows"), py::arg(one),
          "Return whether there is a program for batches of this number of rows.")
      .def(
          "add",
          [](P& p, const std::string& mode, int64_t rows, int number, const py::list& arenas, const py::list& buffers,
             const py::list& instructions, const std::vector<std::shared_ptr<Resource>>& resources, int fields,
             int outputs, const py::bytes& constants) {
            const EngineGuard guard(p.engine(), false);
            Program program = program_from(arenas, buffers, instructions, resources, constants);
            program.fields = fields;
            program.outputs = outputs;
            const Executor& executor = p.engines().add(mode_from_name(mode), rows, number, program);
            std::vector<bool> barriers;
            for (size_t i = 0; i < executor.size(); ++i) barriers.push_back(executor.barrier_before(i));
            return barriers;
          },
          py::arg("mode"), py::arg("rows"), py::arg(one), py::arg("arenas"), py::arg("buffers"),
          py::arg("instructions"), py::arg("resources"), py::arg("fields"), py::arg("outputs"),
          py::arg("constants") = py::bytes(),
          "Add a program for batches of this number of rows. Return, for each instruction, whether a barrier comes "
          "before it.")
      .def(
          "lanes",
          [](P& p, const std::string& mode, int64_t rows) {
            const Executor* executor = program_of(p.engines().engine(0), mode, rows);
            return executor == nullptr ? 0 : executor->lanes();
          },
          py::arg("mode"), py::arg("rows"),
          "Return the number of lanes that run this program of the first one, or 0 if there is no such program.");
}

}  // namespace gradring
