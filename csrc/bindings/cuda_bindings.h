// The topics of the module _cuda.
#pragma once

#include <pybind11/pybind11.h>

#include "cuda/memory.h"

namespace py = pybind11;

namespace gradring {

// What a function of Python lends: (address, owner) for a number of bytes, or None. Called without the GIL, it takes it.
cuda::Lender lender_of(py::object lend);

void bind_cuda_arena(py::module_& m);
void bind_cuda_arrays(py::module_& m);
void bind_cuda_engine(py::module_& m);
void bind_cuda_feed(py::module_& m);
void bind_cuda_ops(py::module_& m);
void bind_cuda_updates(py::module_& m);

}  // namespace gradring
