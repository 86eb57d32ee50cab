#include "bindings/eager_arguments.h"

#include <string>
#include <string_view>

#include "bindings/fast_call.h"
#include "runtime/seed.h"

namespace gradring {

namespace {

int find_parameter(const EagerBinding& b, PyObject* name) {
  const int count = static_cast<int>(b.parameters.size());
  for (int i = 0; i < count; ++i)
    if (b.parameters[static_cast<size_t>(i)].name == name) return i;
  for (int i = 0; i < count; ++i)
    if (PyUnicode_Compare(b.parameters[static_cast<size_t>(i)].name, name) == 0) return i;
  return -1;
}

std::string tag(const char* op, const char* name) { return "[" + std::string(op) + "] " + name; }

[[noreturn]] void wrong_kind(const char* op, const char* name, PyObject* value, const std::string& must) {
  throw py::type_error(tag(op, name) + " is a " + Py_TYPE(value)->tp_name + ": must be " + must);
}

// Lists the choices as "None, 'relu' or 'tanh'"; the first choice is written None if it is "none".
std::string choices_text(const Attribute& attribute) {
  std::string text;
  for (size_t i = 0; i < attribute.choices.size(); ++i) {
    const std::string choice = attribute.choices[i];
    if (i) text += i + 1 == attribute.choices.size() ? " or " : ", ";
    text += i == 0 && choice == "none" ? "None" : "'" + choice + "'";
  }
  return text;
}

int64_t choice_argument(const char* op, const Attribute& attribute, const char* name, PyObject* value) {
  const bool absent = std::string_view(attribute.choices[0]) == "none";
  if (absent && value == Py_None) return 0;
  if (!PyUnicode_Check(value)) wrong_kind(op, name, value, choices_text(attribute));
  for (size_t i = absent; i < attribute.choices.size(); ++i) {
    if (PyUnicode_CompareWithASCIIString(value, attribute.choices[i]) == 0) return static_cast<int64_t>(i);
  }
  throw py::value_error(tag(op, name) + " is " + py::repr(py::handle(value)).cast<std::string>() + ": must be " +
                        choices_text(attribute));
}

// Takes any Python integer and returns its low 64 bits.
int64_t seed_argument(const char* op, const char* name, PyObject* value) {
  const uint64_t seed = PyLong_AsUnsignedLongLongMask(value);
  if (seed == ~uint64_t{0} && PyErr_Occurred()) {
    PyErr_Clear();
    wrong_kind(op, name, value, "an integer");
  }
  return static_cast<int64_t>(seed);
}

}  // namespace

void parse_arguments(const EagerBinding& b, PyObject* const* given, Py_ssize_t count, PyObject* keywords,
                     PyObject** values) {
  const int parameters = static_cast<int>(b.parameters.size());
  if (count > b.positional) {
    PyErr_Format(PyExc_TypeError, "[%s] takes at most %d positional arguments, got %zd", b.name, b.positional, count);
    throw py::error_already_set();
  }
  for (int i = 0; i < parameters; ++i) values[i] = i < count ? given[i] : nullptr;
  const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* const name = PyTuple_GET_ITEM(keywords, k);
    const int i = find_parameter(b, name);
    if (i < 0) {
      PyErr_Format(PyExc_TypeError, "[%s] got an unexpected argument '%U'", b.name, name);
      throw py::error_already_set();
    }
    if (values[i]) {
      PyErr_Format(PyExc_TypeError, "[%s] got %U twice", b.name, name);
      throw py::error_already_set();
    }
    values[i] = given[count + k];
  }
  for (int i = 0; i < parameters; ++i) {
    const EagerParameter& parameter = b.parameters[static_cast<size_t>(i)];
    if (values[i] || !parameter.required) continue;
    PyErr_Format(PyExc_TypeError, "[%s] %s is missing", b.name, parameter.text);
    throw py::error_already_set();
  }
}

double number_argument(const char* op, const char* name, PyObject* value) {
  const double number = PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred()) {
    const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError);  // an int
    PyErr_Clear();
    if (too_large) throw py::value_error(tag(op, name) + " is too large for float64: must be a finite number");
    wrong_kind(op, name, value, "a number");
  }
  return number;
}

int64_t integer_argument(const char* op, const char* name, PyObject* value) {
  const int64_t number = PyLong_AsLongLong(value);
  if (number == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    wrong_kind(op, name, value, "an integer of at most 64 bits");
  }
  return number;
}

bool flag_argument(const char* op, const char* name, PyObject* value) {
  if (value == Py_True) return true;
  if (value == Py_False) return false;
  const std::string_view type = Py_TYPE(value)->tp_name;
  if (type == "numpy.bool" || type == "numpy.bool_") return PyObject_IsTrue(value) == 1;
  return py::module_::import("gradring.ops._convert").attr("flag_value")(op, name, py::handle(value)).ptr() == Py_True;
}

void pair_argument(const char* op, const char* name, PyObject* value, double* first, double* second) {
  PyObject* const pair = PySequence_Fast(value, "");
  if (!pair || PySequence_Fast_GET_SIZE(pair) != 2) {
    PyErr_Clear();
    Py_XDECREF(pair);
    throw py::type_error(tag(op, name) + " must be two numbers");
  }
  const py::object owner = py::reinterpret_steal<py::object>(pair);
  *first = number_argument(op, name, PySequence_Fast_GET_ITEM(pair, 0));
  *second = number_argument(op, name, PySequence_Fast_GET_ITEM(pair, 1));
}

Dtype dtype_argument(const char* op, const char* name, PyObject* value) {
  Dtype dtype = kNoDtype;
  if (PyUnicode_Check(value)) dtype = dtype_named(py::handle(value).cast<std::string>());
  if (dtype == kNoDtype) {
    const auto full = py::module_::import("gradring.ops._convert").attr("dtype_name")(op, name, py::handle(value));
    dtype = dtype_named(full.cast<std::string>());
  }
  if (dtype != kNoDtype) return dtype;
  throw py::type_error(tag(op, name) + " is " + py::repr(py::handle(value)).cast<std::string>() + ": must be " +
                       dtypes_text(kAllDtypes));
}

AttributeValue attribute_argument(const char* op, const Attribute& attribute, const char* name, PyObject* value) {
  switch (attribute.type) {
    case AttributeType::kReal: return real_value(number_argument(op, name, value));
    case AttributeType::kInt:
    case AttributeType::kResource: return integer_value(integer_argument(op, name, value));
    case AttributeType::kFlag: return integer_value(flag_argument(op, name, value));
    case AttributeType::kChoice: return integer_value(choice_argument(op, attribute, name, value));
    case AttributeType::kDtype: return integer_value(static_cast<int64_t>(dtype_argument(op, name, value)));
    case AttributeType::kSeed: break;
  }
  if (value == Py_None && !attribute.required) return integer_value(static_cast<int64_t>(next_seed()));
  return integer_value(seed_argument(op, name, value));
}

bool is_array_with_axes(PyObject* value) noexcept {
  const auto& api = py::detail::npy_api::get();
  return api.PyArray_Check_(value) && py::detail::array_proxy(value)->nd > 0;
}

Array widened(const Array& array) {
  return Array::input("astype", "array", py::handle(array.object()).attr("astype")("int64").ptr());
}

}  // namespace gradring
