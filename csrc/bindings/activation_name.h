// activation= as the eager operations take it.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "ops/activation/activation.h"

namespace gradring {

// None or one of the names; ValueError or TypeError otherwise.
inline Activation activation_argument(const char* op, PyObject* value) {
  namespace py = pybind11;
  static constexpr const char* kNames[] = {"relu", "gelu", "silu", "tanh", "sigmoid"};
  if (!value || value == Py_None) return Activation::kNone;
  if (!PyUnicode_Check(value)) {
    throw py::type_error("[" + std::string(op) + "] activation is a " + Py_TYPE(value)->tp_name +
                         ": must be None, 'relu', 'gelu', 'silu', 'tanh' or 'sigmoid'");
  }
  for (int i = 0; i < 5; ++i)
    if (PyUnicode_CompareWithASCIIString(value, kNames[i]) == 0) return static_cast<Activation>(i + 1);
  throw py::value_error("[" + std::string(op) + "] activation is '" + py::str(py::handle(value)).cast<std::string>() +
                        "': must be None, 'relu', 'gelu', 'silu', 'tanh' or 'sigmoid'");
}

}  // namespace gradring
