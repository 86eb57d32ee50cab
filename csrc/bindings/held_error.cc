#include "bindings/held_error.h"

#include "loader/source.h"

namespace gradring {

namespace {

// A plain pointer, because a thread may outlive the interpreter. A thread that ends while it holds an exception leaks it.
thread_local PyObject* held = nullptr;

}  // namespace

Status hold_python_error() noexcept {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  if (!type) return Status(Code::kInternal, "a Python callback failed without an exception");
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback && value) PyException_SetTraceback(value, traceback);
  const char* name = reinterpret_cast<PyTypeObject*>(type)->tp_name;
  PyObject* text = value ? PyObject_Str(value) : nullptr;
  const char* message = text ? PyUnicode_AsUTF8(text) : nullptr;
  PyErr_Clear();
  const bool exception = PyErr_GivenExceptionMatches(type, PyExc_Exception) != 0;
  Status status(exception ? Code::kPython : kPythonExit, "%s: %s", name, message ? message : "(no message)");
  Py_XDECREF(text);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  Py_XDECREF(held);
  held = value;
  return status;
}

py::object take_held_error() noexcept {
  PyObject* const value = held;
  held = nullptr;
  return py::reinterpret_steal<py::object>(value);
}

void throw_status(const Status& status, const py::object& error) {
  if (is_python(status.code())) {
    const py::object raised = error ? error : take_held_error();
    if (raised) {
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(raised.ptr())), raised.ptr());
      throw py::error_already_set();
    }
  }
  throw_if(status);
}

}  // namespace gradring
