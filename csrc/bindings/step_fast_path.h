// The fast path of a training step: for calls that take a few microseconds in all.
#pragma once

#include "bindings/bindings.h"
#include "program/engine.h"

namespace gradring {

// Raises RuntimeError if another thread is using the engine, or if the engine belongs to the parent of this process.
void enter_or_throw(Engine& engine, bool writes);

void bind_step_fast_path(py::module_& m);

}  // namespace gradring
