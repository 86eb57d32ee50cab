// Letting Python's lock go, and taking it, where the interpreter may end meanwhile.
//
// An interpreter that ends unwinds every other thread that asks for its lock (before Python 3.14), through C++ that cannot
// be unwound: noexcept functions, destructors that need the lock. Such a thread has nowhere to go: it rests until the
// process is gone.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <optional>

namespace gradring {

[[noreturn]] inline void rest() noexcept {
  for (;;) pause();
}

// PyEval_RestoreThread, or rest.
inline void restore_gil(PyThreadState* state) noexcept {
  try {
    PyEval_RestoreThread(state);
  } catch (abi::__forced_unwind&) {
    rest();
  }
}

// Lets the lock go as long as it lives.
class GilRelease {
 public:
  GilRelease() noexcept : state_(PyEval_SaveThread()) {}
  ~GilRelease() { restore_gil(state_); }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

// Lets it go if the work is worth it (over about 20 microseconds).
class MaybeReleaseGil {
 public:
  explicit MaybeReleaseGil(double operations) noexcept {
    if (operations > 1e6) release_.emplace();
  }

 private:
  std::optional<GilRelease> release_;
};

// Calls f with the lock, from native code. Whatever f keeps on its stack while Python code runs must not need the lock when
// it dies: pointers, not owners.
template <class F>
auto with_python(F&& f) noexcept {
  try {
    const pybind11::gil_scoped_acquire hold;
    try {
      return f();
    } catch (abi::__forced_unwind&) {
      rest();  // in here: the lock that is gone must not be given back
    }
  } catch (abi::__forced_unwind&) {
    rest();
  }
}

}  // namespace gradring
