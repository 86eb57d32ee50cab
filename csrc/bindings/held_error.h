// A Python exception on its way through native code: raised in a callback on some thread, raised again elsewhere.
#pragma once

#include "bindings/bindings.h"
#include "runtime/status.h"

namespace gradring {

// Takes the error that Python has set on this thread, with its traceback, into this thread's place (in place of the
// last one), and returns a Status, Code::kPython or, of what is no Exception,
// kPythonExit, with the text "Type: message". Needs the GIL.
Status hold_python_error() noexcept;

// The exception that this thread holds, or null; it holds none afterwards. Needs the GIL.
py::object take_held_error() noexcept;

// Throws what a status says; for codes of Python, the exception that this thread holds. Needs the GIL.
void throw_status(const Status& status);

}  // namespace gradring
