// A waiter for calls from Python.
#pragma once

#include <utility>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "comm/rounds.h"

namespace gradring {

// Releases the GIL when a wait gets long, and takes it again to run signal handlers.
class PythonWaiter final : public Waiter {
 public:
  explicit PythonWaiter(bool release) noexcept {
    if (release) before_sleep();
  }
  ~PythonWaiter() override {
    if (state_) restore_gil(state_);
    Py_XDECREF(error_);
  }
  void before_sleep() noexcept override {
    if (!state_) state_ = PyEval_SaveThread();
  }
  bool interrupted() noexcept override {
    if (error_) return true;
    restore_gil(std::exchange(state_, nullptr));
    if (PyErr_CheckSignals() != 0) {
      PyObject *type = nullptr, *trace = nullptr;
      PyErr_Fetch(&type, &error_, &trace);
      PyErr_NormalizeException(&type, &error_, &trace);
      if (trace) PyException_SetTraceback(error_, trace);
      Py_XDECREF(type);
      Py_XDECREF(trace);
    }
    before_sleep();
    return error_ != nullptr;
  }
  void take_gil() noexcept {
    if (state_) restore_gil(std::exchange(state_, nullptr));
  }
  // Takes the GIL again, and throws the exception of a signal handler, if one raised.
  void settle() {
    take_gil();
    if (!error_) return;
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error_)), error_);
    throw py::error_already_set();
  }

 private:
  PyThreadState* state_ = nullptr;
  PyObject* error_ = nullptr;
};

}  // namespace gradring
