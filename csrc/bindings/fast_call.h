// Functions for METH_FASTCALL: they parse arguments without allocation, and turn C++ exceptions into Python's.
#pragma once

#include <pybind11/pybind11.h>

#include "runtime/status.h"

namespace gradring {

// The parameters of one function. The first `positional` may be given by position, and the first `required` must be given. Make
// it a function-local static.
template <int kCount>
class Parameters {
 public:
  Parameters(const char* op, int positional, int required, const char* const (&names)[kCount])
      : op_(op), positional_(positional), required_(required) {
    for (int i = 0; i < kCount; ++i) names_[i] = PyUnicode_InternFromString(names[i]);
  }

  // Assigns the arguments to the parameters, as borrowed references; null where none was given.
  void parse(PyObject* const* given, Py_ssize_t count, PyObject* keywords, PyObject* (&values)[kCount]) const {
    if (count > positional_) {
      PyErr_Format(PyExc_TypeError, "[%s] takes at most %d positional arguments, got %zd", op_, positional_, count);
      throw py::error_already_set();
    }
    for (int i = 0; i < kCount; ++i) values[i] = i < count ? given[i] : nullptr;
    const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t k = 0; k < named; ++k) {
      PyObject* const name = PyTuple_GET_ITEM(keywords, k);
      const int i = find(name);
      if (i < 0) {
        PyErr_Format(PyExc_TypeError, "[%s] got an unexpected argument '%U'", op_, name);
        throw py::error_already_set();
      }
      if (values[i]) {
        PyErr_Format(PyExc_TypeError, "[%s] got %U twice", op_, name);
        throw py::error_already_set();
      }
      values[i] = given[count + k];
    }
    for (int i = 0; i < required_; ++i) {
      if (!values[i]) {
        PyErr_Format(PyExc_TypeError, "[%s] %U is missing", op_, names_[i]);
        throw py::error_already_set();
      }
    }
  }

 private:
  int find(PyObject* name) const {
    for (int i = 0; i < kCount; ++i)
      if (names_[i] == name) return i;
    for (int i = 0; i < kCount; ++i)
      if (PyUnicode_Compare(names_[i], name) == 0) return i;
    return -1;
  }

  const char* op_;
  int positional_;
  int required_;
  PyObject* names_[kCount];
};

// Whether an argument was given. None counts as not given.
inline PyObject* given_or_null(PyObject* value) noexcept { return value == Py_None ? nullptr : value; }

using FastBody = PyObject* (*)(PyObject* const* given, Py_ssize_t count, PyObject* keywords);

void set_python_error(const Error& error) noexcept;
void raise_current_exception() noexcept;  // inside a catch block: sets the Python error

// Makes a PyMethodDef::ml_meth of a function that may throw.
template <FastBody kBody>
PyObject* fast_call(PyObject*, PyObject* const* given, Py_ssize_t count, PyObject* keywords) noexcept {
  try {
    return kBody(given, count, keywords);
  } catch (...) {
    raise_current_exception();
    return nullptr;
  }
}

template <FastBody kBody>
PyMethodDef fast_method(const char* name, const char* doc) noexcept {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&fast_call<kBody>)),
          METH_FASTCALL | METH_KEYWORDS, doc};
}

}  // namespace gradring
