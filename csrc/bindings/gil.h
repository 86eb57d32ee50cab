// Releases and takes the GIL, even if the interpreter may end at the same time.
//
// Before Python 3.14, an interpreter that ends unwinds every other thread that asks for the GIL. C++ code may not survive that:
// noexcept functions cannot be unwound, and destructors may need the GIL. So such a thread sleeps here until the process ends.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <optional>

namespace gradring {

[[noreturn]] inline void rest() noexcept {
  for (;;) pause();
}

// Calls PyEval_RestoreThread, or sleeps for ever if the interpreter is ending.
inline void restore_gil(PyThreadState* state) noexcept {
  try {
    PyEval_RestoreThread(state);
  } catch (abi::__forced_unwind&) {
    rest();
  }
}

// Releases the GIL as long as this object lives.
class GilRelease {
 public:
  GilRelease() noexcept : state_(PyEval_SaveThread()) {}
  ~GilRelease() { restore_gil(state_); }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

// Does the same if the work takes long enough: more than about 20 microseconds.
class MaybeReleaseGil {
 public:
  explicit MaybeReleaseGil(double operations) noexcept {
    if (operations > 1e6) release_.emplace();
  }

 private:
  std::optional<GilRelease> release_;
};

// Calls f from native code, with the GIL. While Python code runs, f may keep pointers on its stack, but no objects whose
// destructors need the GIL.
template <class F>
auto with_python(F&& f) noexcept {
  try {
    const pybind11::gil_scoped_acquire hold;
    try {
      return f();
    } catch (abi::__forced_unwind&) {
      rest();  // sleep inside, because `hold` must not release the GIL that this thread has lost
    }
  } catch (abi::__forced_unwind&) {
    rest();
  }
}

}  // namespace gradring
