#include "bindings/program_data.h"

#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "bindings/eager_arguments.h"
#include "bindings/engine_data.h"
#include "bindings/gil.h"
#include "runtime/status.h"

namespace gradring {

namespace {

template <class Names>
int position_of(const std::string& name, const Names& names, const char* what) {
  for (size_t i = 0; i < std::size(names); ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  throw Error(Code::kInvalidArgument, std::string("[program] unknown ") + what + " " + name);
}

}  // namespace

BufferKind kind_from_name(const std::string& name) {
  return static_cast<BufferKind>(position_of(name, kBufferKindNames, "kind of buffer"));
}

namespace {

When when_from_name(const std::string& name) {
  static constexpr const char* kNames[] = {"always", "first", "later", "last", "bounded", "unbounded"};
  return static_cast<When>(1 << position_of(name, kNames, "micro-batch"));
}

int operand_named(const OpSchema& op, const std::string& name) {
  const int operand = find_operand(op, name);
  if (operand >= 0) return operand;
  throw Error(Code::kInvalidArgument, "[" + std::string(op.name) + "] has no operand " + name);
}

Argument argument_from(const OpSchema& op, const py::handle& given) {
  auto [name, buffer, offset, dtype, shape, strides] =
      given.cast<std::tuple<std::string, int32_t, int64_t, std::string, std::vector<int64_t>, std::vector<int64_t>>>();
  return {operand_named(op, name), buffer, buffer < 0 ? kNoDtype : dtype_from_name(dtype), offset, std::move(shape),
          std::move(strides)};
}

// An operand without memory, given as (name, dtype, shape). The dtype of a field of the step record is None.
Argument described(const OpSchema& op, const py::handle& given) {
  const auto [name, dtype, shape] =
      given.cast<std::tuple<std::string, std::optional<std::string>, std::vector<int64_t>>>();
  const int operand = operand_named(op, name);
  if (!dtype) return {operand, -1, kNoDtype, 0, {}, {}};
  const Dtype known = dtype_from_name(*dtype);
  return {operand, 0, known, 0, shape, dense_strides(shape, known)};
}

Instruction instruction_from(const std::string& name, const py::handle& operands, const py::dict& attributes,
                             Argument (*argument)(const OpSchema& op, const py::handle& given)) {
  const OpSchema* op = find_schema(name);
  if (op == nullptr) throw Error(Code::kInvalidArgument, "[program] no such op: " + name);
  Instruction instruction(*op);
  for (const py::handle operand : operands) instruction.arguments.push_back(argument(*op, operand));
  for (const auto& [key, value] : attributes) {
    const auto text = key.cast<std::string>();
    const int i = find_attribute(*op, text);
    if (i < 0) throw Error(Code::kInvalidArgument, "[" + name + "] has no attribute " + text);
    const auto at = static_cast<size_t>(i);
    instruction.attributes[at] = attribute_argument(op->name, op->attributes[at], op->attributes[at].name, value.ptr());
  }
  for (const Attribute& attribute : op->attributes) {
    if (!attribute.required || attributes.contains(attribute.name)) continue;
    throw Error(Code::kInvalidArgument, "[" + name + "] " + attribute.name + " is missing");
  }
  return instruction;
}

// Computes a number, such as the FLOPs, of one call, after checking the call.
double count(const Instruction& instruction, double (*number)(const OpCall& call)) {
  check_instruction(instruction);
  return number(CallData(instruction).call());
}

}  // namespace

bool PythonCallback::call(void* const* memory, int count) noexcept {
  return with_python([&] {
    PyObject* const addresses = PyTuple_New(count);
    for (int i = 0; addresses && i < count; ++i) PyTuple_SET_ITEM(addresses, i, PyLong_FromVoidPtr(memory[i]));
    PyObject* const function = function_.ptr();
    PyObject* const result = addresses ? PyObject_CallOneArg(function, addresses) : nullptr;
    Py_XDECREF(addresses);
    const bool good = result && PyObject_IsTrue(result) == 1;
    Py_XDECREF(result);
    if (PyErr_Occurred()) PyErr_WriteUnraisable(function);
    return good;
  });
}

Dtype dtype_from_name(const std::string& name) {
  const Dtype dtype = dtype_named(name);
  if (dtype != kNoDtype) return dtype;
  throw Error(Code::kInvalidArgument, "[program] unknown dtype " + name);
}

Program program_from(const py::list& arenas, const py::list& buffers, const py::list& instructions,
                     const std::vector<std::shared_ptr<Resource>>& resources, std::string constants) {
  Program program;
  program.constants = std::move(constants);
  for (const py::handle arena : arenas) {
    auto [name, kind, bytes] = arena.cast<std::tuple<std::string, std::string, int64_t>>();
    program.arenas.push_back({std::move(name), kind_from_name(kind), bytes});
  }
  for (const py::handle buffer : buffers) {
    const auto [kind, bytes, offset, arena] = buffer.cast<std::tuple<std::string, int64_t, int64_t, int32_t>>();
    program.buffers.push_back({kind_from_name(kind), bytes, offset, arena});
  }
  for (const py::handle given : instructions) {
    const auto [op, operands, attributes, when, origin] =
        given.cast<std::tuple<std::string, py::object, py::dict, std::string, std::string>>();
    const auto told = [&, &origin = origin](const char* what) {
      return told_of(*what == '[' ? what : std::string("[program] ") + what, program.instructions.size(), origin);
    };
    try {
      program.instructions.push_back(instruction_from(op, operands, attributes, argument_from));
    } catch (const Error& error) {
      throw Error(error.code(), told(error.what()));
    } catch (const py::value_error& error) {
      throw Error(Code::kInvalidArgument, told(error.what()));
    } catch (const py::type_error& error) {
      throw Error(Code::kWrongType, told(error.what()));
    }
    program.instructions.back().when = when_from_name(when);
    program.instructions.back().origin = origin;
  }
  program.resources.assign(resources.begin(), resources.end());
  return program;
}

Arenas arenas_from(const ArenaList& given) {
  Arenas arenas;
  for (const auto& [name, kind, memory] : given) {
    const BufferKind known = kind_from_name(kind);
    if (!has_arena(known) || known == BufferKind::kTemp || memory == nullptr) {
      throw Error(Code::kInvalidArgument,
                  "[Engine] arena " + name + " is of kind " + kind + ": must be param, grad or state, with memory");
    }
    arenas.set(name, known, memory->data(), static_cast<int64_t>(memory->size()), memory);
  }
  return arenas;
}

void bind_program_data(py::module_& m) {
  py::class_<Resource, std::shared_ptr<Resource>>(m, "Resource",
                                                  "An object that an instruction needs beside memory and numbers.");
  py::class_<PythonCallback, Resource, std::shared_ptr<PythonCallback>>(m, "Callback",
                                                                        "A Python function that a program may call.")
      .def(py::init<py::object>(), py::arg("function"));
  m.def(
      "step_fields",
      [] {
        py::list fields;
        for (size_t i = 1; i < kStepFields.size(); ++i) {
          py::dict field;
          field["name"] = kStepFields[i].name;
          field["dtype"] = dtype_name(kStepFields[i].dtype);
          field["given"] = kStepFields[i].given;
          fields.append(field);
        }
        return fields;
      },
      "Return the fields of the step record that graphs name. Each is a dict with name, dtype and given.");
  m.def(
      "check_instruction",
      [](const std::string& op, const py::object& operands, const py::dict& attributes) {
        check_instruction(instruction_from(op, operands, attributes, described));
      },
      py::arg("op"), py::arg("operands"), py::arg("attributes"),
      "Check whether a program may make this call, and raise an error that names op and operand if not. An operand is "
      "(name, dtype, shape); a field of the step record has the dtype None.");
  m.def(
      "count_flops",
      [](const std::string& op, const py::object& operands, const py::dict& attributes) {
        return count(instruction_from(op, operands, attributes, described), count_flops);
      },
      py::arg("op"), py::arg("operands"), py::arg("attributes"),
      "Return the number of multiplications and additions of one call. The arguments are those of check_instruction.");
  m.def(
      "count_bytes",
      [](const std::string& op, const py::object& operands, const py::dict& attributes) {
        return count(instruction_from(op, operands, attributes, described), count_bytes);
      },
      py::arg("op"), py::arg("operands"), py::arg("attributes"),
      "Return the number of bytes that one call moves between memory and cold caches. The arguments are those of "
      "check_instruction.");
}

}  // namespace gradring
