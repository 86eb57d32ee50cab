// The topics of the module _cuda.
#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace gradring {

void bind_cuda_arrays(py::module_& m);
void bind_cuda_engine(py::module_& m);
void bind_cuda_feed(py::module_& m);
void bind_cuda_ops(py::module_& m);
void bind_cuda_updates(py::module_& m);

}  // namespace gradring
