#include "ops/op.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "runtime/status.h"

namespace gradring {

namespace {

// A number as text: 3, or for a real number 3.0, 0.25, 1e-09 or inf, with as few digits as give the same number again.
std::string number_text(double value, bool real) {
  if (!real) return std::to_string(static_cast<int64_t>(value));
  char digits[32];
  int count = 6;
  do {
    std::snprintf(digits, sizeof digits, "%.*g", count, value);
  } while (std::strtod(digits, nullptr) != value && ++count <= 17);
  const std::string text = digits;
  return text.find_first_of(".ein") == std::string::npos ? text + ".0" : text;
}

std::string range_text(const Attribute& attribute) {
  const bool from = attribute.least > -std::numeric_limits<double>::infinity();
  const bool to = attribute.most < std::numeric_limits<double>::infinity();
  const auto limit = [](double value) {
    return number_text(value, value != static_cast<double>(static_cast<int64_t>(value)));
  };
  const std::string least = from ? limit(attribute.least) : "", most = to ? limit(attribute.most) : "";
  if (from && to && attribute.below_most) return "at least " + least + " and less than " + most;
  if (from && to) return "between " + least + " and " + most;
  if (from) return "at least " + least;
  return attribute.below_most ? "less than " + most : "at most " + most;
}

// Separate functions make the errors, so that the checks themselves are only a few instructions.
[[noreturn, gnu::noinline, gnu::cold]] void refuse_dtype(const OpCall& call, int i) {
  const Operand& operand = call.op->operands[static_cast<size_t>(i)];
  const Tensor& tensor = call[i];
  const std::string tag = "[" + std::string(call.name) + "] ";
  if (operand.dtypes != 0) {
    throw Error(Code::kWrongType, tag + call.operand_name(i) + " is of dtype " + dtype_name(tensor.dtype) +
                                      ": must be " + dtypes_text(operand.dtypes | operand.widened) +
                                      "; convert it with .astype");
  }
  const Dtype other = call[operand.same_dtype].dtype;
  const bool wider = takes_dtype(operand, Dtype::kFloat32, other) && other != Dtype::kFloat32;
  const std::string must = wider ? std::string(dtype_name(other)) + " or float32" : "have the same dtype";
  throw Error(Code::kWrongType, tag + call.operand_name(operand.same_dtype) + " is " + dtype_name(other) + ", " +
                                    call.operand_name(i) + " is " + dtype_name(tensor.dtype) +
                                    (wider ? ": must be " : ": must ") + must + "; convert one with .astype");
}

[[noreturn, gnu::noinline, gnu::cold]] void refuse_rank(const OpCall& call, int i) {
  const Operand& operand = call.op->operands[static_cast<size_t>(i)];
  const auto axes = [](int count) { return std::to_string(count) + (count == 1 ? " dimension" : " dimensions"); };
  std::string must = "at least " + axes(operand.least_rank);
  if (operand.least_rank == 1 && operand.most_rank >= Shape::kMost) must = "at least one dimension";
  if (operand.least_rank == operand.most_rank) must = axes(operand.least_rank);
  refuse(call, call.operand_name(i) + (call[i].rank ? " is " + shape_text(call[i]) : std::string(" is a scalar")) +
                   ": must have " + must);
}

[[noreturn, gnu::noinline, gnu::cold]] void refuse_missing(const OpCall& call, int i) {
  throw Error(Code::kWrongType, "[" + std::string(call.name) + "] " + call.operand_name(i) + " is missing");
}

// If the attribute names no dtype, check_attribute reports that, so this function accepts it.
void check_named_dtype(const OpCall& call, const Operand& operand, int i) {
  const int64_t named = call.integer(operand.dtype_attribute);
  if (named < 0 || named >= kDtypes || static_cast<Dtype>(named) == call[i].dtype) return;
  throw Error(Code::kWrongType, "[" + std::string(call.name) + "] " + call.operand_name(i) + " is of dtype " +
                                    dtype_name(call[i].dtype) + ": must be " + dtype_name(static_cast<Dtype>(named)) +
                                    ", as " + call.op->attributes[static_cast<size_t>(operand.dtype_attribute)].name +
                                    " says");
}

inline void check_dtype(const OpCall& call, const Operand& operand, int i) {
  const Dtype dtype = call[i].dtype;
  if (operand.dtypes != 0) {
    if ((only(dtype) & operand.dtypes) == 0) refuse_dtype(call, i);
    if (operand.dtype_attribute >= 0) check_named_dtype(call, operand, i);
    return;
  }
  const Dtype other = call[operand.same_dtype].dtype;
  if (other != kNoDtype && !takes_dtype(operand, dtype, other)) refuse_dtype(call, i);
}

inline void check_rank(const OpCall& call, const Operand& operand, int i) {
  const int rank = call[i].rank;
  if (rank < operand.least_rank || rank > operand.most_rank) refuse_rank(call, i);
}

inline bool same_shape(const Tensor& a, const Tensor& b) noexcept {
  if (a.rank != b.rank) return false;
  for (int axis = 0; axis < a.rank; ++axis)
    if (a.shape[axis] != b.shape[axis]) return false;
  return true;
}

[[noreturn, gnu::noinline, gnu::cold]] void refuse_attribute(const OpCall& call, size_t i, double number) {
  const Attribute& attribute = call.op->attributes[i];
  if (attribute.type == AttributeType::kChoice) {
    refuse(call, attribute.name + std::string(" is choice ") + std::to_string(call.attributes[i].integer) +
                     ": there are " + std::to_string(attribute.choices.size()));
  }
  refuse(call, attribute.name + std::string(" is ") + number_text(number, attribute.type == AttributeType::kReal) +
                   (std::isfinite(number) ? ": must be " : ": must be finite and ") + range_text(attribute));
}

inline void check_attribute(const OpCall& call, const Attribute& attribute, size_t i) {
  const AttributeValue value = call.attributes[i];
  switch (attribute.type) {
    case AttributeType::kSeed:
    case AttributeType::kFlag:
    case AttributeType::kResource: return;
    case AttributeType::kChoice:
      if (static_cast<uint64_t>(value.integer) >= attribute.choices.size()) refuse_attribute(call, i, 0);
      return;
    case AttributeType::kDtype:
      if (static_cast<uint64_t>(value.integer) >= kDtypes) refuse(call, attribute.name + std::string(" is no dtype"));
      return;
    default: break;
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double number = attribute.type == AttributeType::kReal ? value.real : static_cast<double>(value.integer);
  if (attribute.least == -kInfinity && attribute.most == kInfinity) return;  // only these may be infinite or NaN
  if (number >= attribute.least && (attribute.below_most ? number < attribute.most : number <= attribute.most) &&
      std::isfinite(number))
    return;
  refuse_attribute(call, i, number);
}

}  // namespace

std::string shape_text(int rank, const int64_t* shape) {
  std::string text = "(";
  for (int axis = 0; axis < rank; ++axis) {
    if (axis) text += ", ";
    text += std::to_string(shape[axis]);
  }
  return text + (rank == 1 ? ",)" : ")");
}

std::string dtypes_text(DtypeSet dtypes) {
  std::string text;
  for (int i = 0; i < kDtypes; ++i) {
    if ((dtypes & only(static_cast<Dtype>(i))) == 0) continue;
    const bool last = (dtypes >> (i + 1)) == 0;
    if (!text.empty()) text += last ? " or " : ", ";
    text += dtype_name(static_cast<Dtype>(i));
  }
  return text;
}

void refuse(const OpCall& call, const std::string& text) {
  throw Error(Code::kInvalidArgument, "[" + std::string(call.name) + "] " + text);
}

void refuse_shapes(const OpCall& call, int first, int second, const std::string& must) {
  refuse(call, call.operand_name(first) + std::string(" is ") + shape_text(call[first]) + ", " +
                   call.operand_name(second) + " is " + shape_text(call[second]) + ": " + must);
}

void check_columns(const OpCall& call, int x, int vector) {
  const Tensor& tensor = call[vector];
  const int64_t columns = call[x].columns();
  if (!tensor || (tensor.rank == 1 && tensor.shape[0] == columns)) return;
  refuse_shapes(call, x, vector,
                call.operand_name(vector) + std::string(" must be (") + std::to_string(columns) + ",)");
}

const OpSchema* find_schema(std::string_view name) noexcept {
  for (const OpSchema* op : all_ops())
    if (op->name == name) return op;
  return nullptr;
}

int find_operand(const OpSchema& op, std::string_view name) noexcept {
  for (size_t i = 0; i < op.operands.size(); ++i)
    if (op.operands[i].name == name) return static_cast<int>(i);
  return -1;
}

int find_attribute(const OpSchema& op, std::string_view name) noexcept {
  for (size_t i = 0; i < op.attributes.size(); ++i)
    if (op.attributes[i].name == name) return static_cast<int>(i);
  return -1;
}

void check_dtypes(const OpCall& call) {
  for (size_t i = 0; i < call.op->operands.size(); ++i)
    if (call[static_cast<int>(i)] && call.op->operands[i].step == StepField::kNone)
      check_dtype(call, call.op->operands[i], static_cast<int>(i));
}

void check_call(const OpCall& call, bool results) {
  const OpSchema& op = *call.op;
  const int count = static_cast<int>(op.operands.size());
  for (int i = 0; i < count; ++i) {
    const Operand& operand = op.operands[static_cast<size_t>(i)];
    if (!call[i]) {
      if (operand.optional || (operand.access == Access::kWrite && !results)) continue;
      refuse_missing(call, i);
    }
    if (operand.step != StepField::kNone) continue;
    check_dtype(call, operand, i);
    check_rank(call, operand, i);
    if (operand.like >= 0 && call[operand.like] && !same_shape(call[i], call[operand.like])) {
      refuse_shapes(call, operand.like, i, "must be the same");
    }
  }
  for (size_t i = 0; i < op.attributes.size(); ++i) check_attribute(call, op.attributes[i], i);
  if (op.check) op.check(call);
  if (!results) return;
  for (int i = 0; i < count; ++i) {
    const Operand& operand = op.operands[static_cast<size_t>(i)];
    if (operand.access != Access::kWrite || !call[i] || operand.like >= 0 || !op.shape) continue;
    if (operand.step != StepField::kNone) continue;
    Shape shape;
    op.shape(call, i, &shape);
    const Tensor wanted{nullptr, shape.extent, nullptr, shape.rank, call[i].dtype};
    if (same_shape(wanted, call[i])) continue;
    refuse(call, call.operand_name(i) + std::string(" is ") + shape_text(call[i]) + ": must be " + shape_text(wanted));
  }
}

double count_flops(const OpCall& call) { return call.op->flops == nullptr ? 0 : call.op->flops(call); }

double count_bytes(const OpCall& call) {
  return call.op->bytes == nullptr ? all_operand_bytes(call) : call.op->bytes(call);
}

double all_operand_bytes(const OpCall& call) noexcept {
  double bytes = 0;
  for (size_t i = 0; i < call.op->operands.size(); ++i) bytes += operand_bytes(call, static_cast<int>(i));
  return bytes;
}

double operand_bytes(const OpCall& call, int i) noexcept {
  const Operand& operand = call.op->operands[static_cast<size_t>(i)];
  const Tensor& tensor = call[i];
  if (!tensor || operand.step != StepField::kNone || operand.undefined) return 0;
  const auto once = static_cast<double>(tensor.elements()) * static_cast<double>(size_of(tensor.dtype));
  return operand.access == Access::kUpdate ? 2 * once : once;
}

void result_shape(const OpCall& call, int operand, Shape* shape) {
  const Operand& result = call.op->operands[static_cast<size_t>(operand)];
  if (result.like < 0) return call.op->shape(call, operand, shape);
  const Tensor& like = call[result.like];
  shape->rank = like.rank;
  for (int axis = 0; axis < like.rank; ++axis) shape->extent[axis] = like.shape[axis];
}

}  // namespace gradring
