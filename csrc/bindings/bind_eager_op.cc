// The type EagerOp, and the function ops(), which returns all schemas as plain data.
#include <pybind11/stl.h>
#include <structmember.h>

#include <deque>
#include <memory>
#include <string>

#include "bindings/array.h"
#include "bindings/bindings.h"
#include "bindings/eager_arguments.h"
#include "bindings/fast_call.h"
#include "bindings/heap_type.h"
#include "ops/cuda_kernels.h"
#include "ops/matmul/products.h"

namespace gradring {

namespace {

struct OwnedBinding : EagerBinding {
  std::deque<std::string> texts;  // owns the texts that the binding's pointers point to
  py::object names, fallback;

  const char* keep(std::string text) { return texts.emplace_back(std::move(text)).c_str(); }
};

// The memory of the Python object. Its __dict__ holds __name__, __doc__, __wrapped__ and other attributes of functions.
struct EagerObject {
  PyObject_HEAD vectorcallfunc call;
  OwnedBinding* binding;
  PyObject* dict;
};

EagerObject* object_of(PyObject* self) noexcept { return reinterpret_cast<EagerObject*>(self); }

PyObject* call(PyObject* self, PyObject* const* given, size_t count, PyObject* keywords) noexcept {
  return eager_call(*object_of(self)->binding, given, PyVectorcall_NARGS(count), keywords);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(object_of(self)->dict);
  if (object_of(self)->binding) Py_VISIT(object_of(self)->binding->fallback.ptr());
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(object_of(self)->dict);
  return 0;
}

void deallocate(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  clear(self);
  delete object_of(self)->binding;
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

PyObject* represent(PyObject* self) { return PyUnicode_FromFormat("<op %s>", object_of(self)->binding->name); }

// Pickles the object by its name, as Python pickles functions.
PyObject* reduce(PyObject* self, PyObject*) { return PyUnicode_FromString(object_of(self)->binding->name); }

PyTypeObject* eager_type() {
  static PyMethodDef methods[] = {{"__reduce__", reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(EagerObject, call), READONLY, nullptr},
      {"__dictoffset__", T_PYSSIZET, offsetof(EagerObject, dict), READONLY, nullptr},
      {nullptr, 0, 0, 0, nullptr},
  };
  static PyGetSetDef properties[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                                     {nullptr, nullptr, nullptr, nullptr, nullptr}};
  static PyType_Slot slots[] = {
      {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
      {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
      {Py_tp_clear, reinterpret_cast<void*>(clear)},
      {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
      {Py_tp_repr, reinterpret_cast<void*>(represent)},
      {Py_tp_getattro, reinterpret_cast<void*>(PyObject_GenericGetAttr)},
      {Py_tp_setattro, reinterpret_cast<void*>(PyObject_GenericSetAttr)},
      {Py_tp_methods, methods},
      {Py_tp_members, members},
      {Py_tp_getset, properties},
      {0, nullptr},
  };
  static PyType_Spec spec = {
      "gradring._core.EagerOp", sizeof(EagerObject), 0,
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<PyTypeObject*> type;
  return heap_type(type, spec);
}

ParameterKind kind_named(const std::string& name) {
  static constexpr const char* kNames[] = {"operand", "factor", "attribute", "pair", "need", "axis", "out", "dtype"};
  for (int i = 0; i < 8; ++i)
    if (name == kNames[i]) return static_cast<ParameterKind>(i);
  throw py::value_error("[eager_op] no such kind of parameter: " + name);
}

int operand_of(const OpSchema& op, const std::string& name) {
  const int i = find_operand(op, name);
  if (i < 0) throw py::value_error("[eager_op] " + std::string(op.name) + " has no operand " + name);
  return i;
}
int attribute_of(const OpSchema& op, const std::string& name) {
  const int i = find_attribute(op, name);
  if (i < 0) throw py::value_error("[eager_op] " + std::string(op.name) + " has no attribute " + name);
  return i;
}

void add_parameter(OwnedBinding* b, const py::tuple& given) {
  const OpSchema& op = *b->op;
  EagerParameter p;
  const auto name = given[0].cast<std::string>();
  p.text = b->keep(name);
  p.name = PyUnicode_InternFromString(p.text);
  b->names.cast<py::list>().append(py::reinterpret_steal<py::object>(p.name));
  p.kind = kind_named(given[1].cast<std::string>());
  p.required = given[2].cast<bool>();
  const auto targets = given[3].cast<std::vector<std::string>>();
  if (p.kind == ParameterKind::kOperand || p.kind == ParameterKind::kFactor || p.kind == ParameterKind::kNeed) {
    p.first = operand_of(op, targets.at(0));
    const Access access = op.operands[static_cast<size_t>(p.first)].access;
    b->updates = b->updates || access == Access::kUpdate;
    b->takes_results = b->takes_results || (access == Access::kWrite && p.kind == ParameterKind::kOperand);
    if (p.kind != ParameterKind::kNeed) b->operand_names[p.first] = p.text;
  }
  if (p.kind == ParameterKind::kAttribute || p.kind == ParameterKind::kPair) p.first = attribute_of(op, targets.at(0));
  if (p.kind == ParameterKind::kFactor || p.kind == ParameterKind::kPair) p.second = attribute_of(op, targets.at(1));
  p.draws = !p.required && p.kind == ParameterKind::kAttribute &&
            op.attributes[static_cast<size_t>(p.first)].type == AttributeType::kSeed;
  b->parameters.push_back(p);
}

// Each of `parameters` is (name, kind, required, names of operands or attributes). `presets` maps attributes to the values that
// they always have.
py::object make_eager_op(const std::string& name, const std::string& op, const py::list& parameters, int positional,
                         const std::vector<std::string>& results, const py::dict& presets,
                         const std::optional<std::string>& hidden, const std::optional<std::string>& outcome,
                         const py::object& other_ranks) {
  auto b = std::make_unique<OwnedBinding>();
  b->op = find_schema(op);
  if (!b->op) throw py::value_error("[eager_op] no such op: " + op);
  if (b->op->operands.size() > EagerBinding::kMostOperands ||
      b->op->attributes.size() > EagerBinding::kMostAttributes || parameters.size() > EagerBinding::kMostParameters) {
    throw py::value_error("[eager_op] " + op + " has too many operands, attributes or parameters");
  }
  b->names = py::list();
  b->name = b->keep(name);
  b->positional = positional;
  for (const py::handle parameter : parameters) add_parameter(b.get(), py::cast<py::tuple>(parameter));
  for (const std::string& result : results) b->results.push_back(operand_of(*b->op, result));
  if (results.size() == 1) b->operand_names[b->results[0]] = "out";
  for (size_t i = 0; i < b->op->attributes.size(); ++i) {
    b->presets[i] = b->op->attributes[i].otherwise;
    if (b->op->attributes[i].method) b->method = static_cast<int>(i);
  }
  for (const auto& [key, value] : presets) {
    const int i = attribute_of(*b->op, key.cast<std::string>());
    const Attribute& attribute = b->op->attributes[static_cast<size_t>(i)];
    b->presets[i] = attribute_argument(b->name, attribute, attribute.name, value.ptr());
  }
  if (hidden) b->hidden = operand_of(*b->op, *hidden);
  if (hidden) b->reduction = find_attribute(*b->op, "reduction");
  if (outcome) b->first_outcome = operand_of(*b->op, *outcome);
  b->fallback = other_ranks;
  b->other_ranks = other_ranks.is_none() ? nullptr : other_ranks.ptr();
  EagerObject* const made = PyObject_GC_New(EagerObject, eager_type());
  if (!made) throw py::error_already_set();
  made->call = call;
  b->self = reinterpret_cast<PyObject*>(made);
  made->binding = b.release();
  made->dict = PyDict_New();
  PyObject_GC_Track(reinterpret_cast<PyObject*>(made));
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(made));
}

py::object default_of(const Attribute& attribute) {
  const AttributeValue value = attribute.otherwise;
  if (attribute.required || attribute.type == AttributeType::kSeed || attribute.type == AttributeType::kDtype)
    return py::none();
  switch (attribute.type) {
    case AttributeType::kReal: return py::float_(value.real);
    case AttributeType::kFlag: return py::bool_(value.integer != 0);
    case AttributeType::kChoice: return py::str(attribute.choices[static_cast<size_t>(value.integer)]);
    default: return py::int_(value.integer);
  }
}

const StepFieldFacts& step_facts(StepField field) { return kStepFields[static_cast<size_t>(field)]; }

py::object name_or_none(const OpSchema& op, int operand) {
  return operand < 0 ? py::object(py::none()) : py::str(op.operands[static_cast<size_t>(operand)].name);
}

// The names of an epilogue's attribute, result and other operand, or None if the op has no such epilogue.
py::object describe(const OpSchema& op, const Epilogue& epilogue) {
  if (epilogue.attribute < 0) return py::none();
  return py::make_tuple(op.attributes[static_cast<size_t>(epilogue.attribute)].name, name_or_none(op, epilogue.result),
                        name_or_none(op, epilogue.other));
}

// The kind of a part, its attribute, input, other operand and result, by name; None if the op is no such part (op.h).
py::object describe(const OpSchema& op, const Part& part) {
  if (part.kind == PartKind::kNone) return py::none();
  const py::object attribute =
      part.attribute < 0 ? py::object(py::none()) : py::str(op.attributes[static_cast<size_t>(part.attribute)].name);
  return py::make_tuple(kPartNames[static_cast<int>(part.kind)], attribute, name_or_none(op, part.input),
                        name_or_none(op, part.other), name_or_none(op, part.result));
}

// The facts of an op that the passes over graphs and programs use.
void describe_program(const OpSchema& op, py::dict* schema) {
  py::list phases;
  for (size_t i = 0; i < std::size(kPhaseNames); ++i)
    if ((op.phases >> i & 1) != 0) phases.append(kPhaseNames[i]);
  (*schema)["phases"] = phases;
  (*schema)["program_only"] = op.program_only;
  (*schema)["elementwise"] = op.elementwise;
  (*schema)["effects"] = op.effects;
  (*schema)["epilogue"] = describe(op, op.epilogue);
  (*schema)["derivative_epilogue"] = describe(op, op.derivative_epilogue);
  (*schema)["fuses"] =
      op.fuses.product == nullptr ? py::object(py::none()) : py::make_tuple(op.fuses.product, op.fuses.update);
  (*schema)["part"] = describe(op, op.part);
  (*schema)["limit"] = op.limit.operand < 0
                           ? py::object(py::none())
                           : py::make_tuple(name_or_none(op, op.limit.operand), name_or_none(op, op.limit.below),
                                            static_cast<int>(op.limit.axis));
}

py::dict describe(const OpSchema& op) {
  static constexpr const char* kAccess[] = {"read", "write", "update"};
  static constexpr const char* kTypes[] = {"int", "real", "flag", "choice", "seed", "resource", "dtype"};
  py::list operands, attributes;
  for (const Operand& o : op.operands) {
    py::list dtypes;
    const DtypeSet allowed = o.step == StepField::kNone ? o.dtypes : only(step_facts(o.step).dtype);
    for (int i = 0; i < kDtypes; ++i)
      if ((allowed & only(static_cast<Dtype>(i))) != 0) dtypes.append(dtype_name(static_cast<Dtype>(i)));
    py::dict operand;
    operand["name"] = o.name;
    operand["access"] = kAccess[static_cast<int>(o.access)];
    operand["dtypes"] = dtypes;
    operand["dtype_of"] = o.step == StepField::kNone ? name_or_none(op, o.same_dtype) : py::none();
    operand["or_float32"] = o.or_float32;
    operand["dtype_named"] = o.dtype_attribute < 0
                                 ? py::object(py::none())
                                 : py::str(op.attributes[static_cast<size_t>(o.dtype_attribute)].name);
    operand["shape_of"] = name_or_none(op, o.like);
    operand["optional"] = o.optional;
    operand["step"] = o.step == StepField::kNone ? py::object(py::none()) : py::str(step_facts(o.step).name);
    operand["undefined"] = o.undefined;
    operand["column_sums_of"] = name_or_none(op, o.column_sums_of);
    operand["bound"] = o.bound;
    operands.append(operand);
  }
  for (const Attribute& a : op.attributes) {
    py::list choices;
    for (const char* choice : a.choices) choices.append(choice);
    py::dict attribute;
    attribute["name"] = a.name;
    attribute["type"] = kTypes[static_cast<int>(a.type)];
    attribute["choices"] = choices;
    attribute["default"] = default_of(a);
    attribute["required"] = a.required;
    attribute["method"] = a.method;
    attributes.append(attribute);
  }
  py::dict schema;
  schema["name"] = op.name;
  schema["operands"] = operands;
  schema["attributes"] = attributes;
  schema["cuda"] = cuda_kernel(op) != nullptr;
  describe_program(op, &schema);
  return schema;
}

py::list ops() {
  py::list schemas;
  for (const OpSchema* op : all_ops()) schemas.append(describe(*op));
  return schemas;
}

}  // namespace

void bind_eager_op(py::module_& m) {
  m.def("ops", &ops, "Return the schema of each op as a dict, with its name, operands, attributes and more.");
  m.def(
      "set_bfloat16", [](const py::dtype& dtype) { numpy_bfloat16 = dtype.num(); }, py::arg("dtype"),
      "Tell native code which of NumPy's dtypes is the bfloat16 that ml_dtypes defines.");
  m.def(
      "get_float32_products", [] { return kProductsNames[static_cast<int>(default_products())]; },
      "Return how products of float32 matrices are computed by calls that do not say it.");
  m.def(
      "set_float32_products",
      [](std::string_view name) {
        for (size_t i = 0; i < std::size(kProductsNames); ++i) {
          if (name == kProductsNames[i]) return set_default_products(static_cast<Products>(i));
        }
        throw py::value_error("[set_float32_products] no such way: " + std::string(name));
      },
      py::arg("products"), "Set how products of float32 matrices are computed by calls that do not say it.");
  m.def("make_eager_op", &make_eager_op, py::kw_only(), py::arg("name"), py::arg("op"), py::arg("parameters"),
        py::arg("positional"), py::arg("results"), py::arg("presets"), py::arg("hidden"), py::arg("outcome"),
        py::arg("other_ranks"),
        "Make a callable that runs an op on arrays. gradring.ops._eager derives the arguments from a function's "
        "signature.");
}

}  // namespace gradring
