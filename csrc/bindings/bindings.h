// One function a topic; each lives in bind_<topic>.cc.
#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace gradring {

void bind_activation(py::module_& m);
void bind_arena(py::module_& m);
void bind_comm(py::module_& m);
void bind_cross_entropy(py::module_& m);
void bind_dropout(py::module_& m);
void bind_errors(py::module_& m);
void bind_linear(py::module_& m);
void bind_loader(py::module_& m);
void bind_matmul(py::module_& m);
void bind_pointwise_loss(py::module_& m);
void bind_program(py::module_& m);
void bind_runtime(py::module_& m);
void bind_softmax(py::module_& m);
void bind_sources(py::module_& m);
void bind_update(py::module_& m);

}  // namespace gradring
