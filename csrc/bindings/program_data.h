// Makes programs and instructions from plain Python data.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "program/program.h"

namespace py = pybind11;

namespace gradring {

// Calls a Python function with the operands' addresses; it returns a truth value and never raises.
class PythonCallback final : public Callback {
 public:
  explicit PythonCallback(py::object function) : function_(std::move(function)) {}
  bool call(void* const* memory, int count) noexcept override;

 private:
  py::object function_;
};

Dtype dtype_from_name(const std::string& name);

BufferKind kind_from_name(const std::string& name);

// arenas: (name, kind, bytes) each. buffers: (kind, bytes, offset, number of the arena or -1) each. instructions: (op, operands,
// attributes, when, origin) each, with operands (name, buffer, offset, dtype, shape, strides), where buffer -1 is the step record,
// and attributes by name.
Program program_from(const py::list& arenas, const py::list& buffers, const py::list& instructions,
                     const std::vector<std::shared_ptr<Resource>>& resources, std::string constants);

void bind_program_data(py::module_& m);

}  // namespace gradring
