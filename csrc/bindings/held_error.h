// Carries a Python exception through native code: from a callback on one thread to where it is raised again.
#pragma once

#include "bindings/bindings.h"
#include "runtime/status.h"

namespace gradring {

// Takes the error that Python has set on this thread, with its traceback, and stores it for this thread, replacing the
// last one. Returns a Status with the text "Type: message": Code::kPython, or kPythonExit if it is no Exception. Needs
// the GIL.
Status hold_python_error() noexcept;

// Returns the exception that this thread holds, or null. The thread holds none afterwards. Needs the GIL.
py::object take_held_error() noexcept;

// Throws the exception that a status describes; for the codes of Python, `error`, or if that is null the one that this thread
// holds. Needs the GIL.
void throw_status(const Status& status, const py::object& error = {});

}  // namespace gradring
