// One function per topic; each is defined in bind_<topic>.cc.
#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace gradring {

void bind_arena(py::module_& m);
void bind_comm(py::module_& m);
void bind_eager_op(py::module_& m);
void bind_errors(py::module_& m);
void bind_loader(py::module_& m);
void bind_program(py::module_& m);
void bind_ranks(py::module_& m);
void bind_runtime(py::module_& m);
void bind_sources(py::module_& m);

}  // namespace gradring
