// A Python exception on its way through native code: raised in a callback on some thread, raised again elsewhere.
#pragma once

#include <cxxabi.h>
#include <unistd.h>

#include "bindings/bindings.h"
#include "runtime/status.h"

namespace gradring {

// Takes the error that Python has set on this thread, with its traceback, into this thread's place (in place of the
// last one), and returns Status(Code::kPython, "Type: message"). Needs the GIL.
Status hold_python_error() noexcept;

// The exception that this thread holds, or null; it holds none afterwards. Needs the GIL.
py::object take_held_error() noexcept;

// Calls f with the GIL, on a thread that Python does not know. An interpreter that ends unwinds such threads when they ask
// for its lock; ours have nowhere to unwind to, and rest until the process is gone.
template <class F>
auto with_python(F&& f) noexcept {
  try {
    const py::gil_scoped_acquire hold;
    try {
      return f();
    } catch (abi::__forced_unwind&) {
      for (;;) pause();  // in here: the lock that is gone must not be given back
    }
  } catch (abi::__forced_unwind&) {
    for (;;) pause();
  }
}

}  // namespace gradring
