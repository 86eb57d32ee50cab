// The schema of an op. Each op is declared once, in csrc/ops/<op>/op.cc: its operands, its attributes, its checks, the work that a
// call takes, and its kernels. The eager functions, programs and Python read this declaration.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gradring/export.h"
#include "ops/resource.h"
#include "ops/step_record.h"
#include "ops/work.h"
#include "runtime/dtype.h"

namespace gradring {

// An array in the form that kernels read. It owns no memory.
struct Tensor {
  void* data = nullptr;
  const int64_t* shape = nullptr;
  const int64_t* strides = nullptr;  // bytes between neighbours along each axis
  int32_t rank = 0;
  Dtype dtype = kNoDtype;  // kNoDtype: the operand is absent

  explicit operator bool() const noexcept { return dtype != kNoDtype; }
  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data);
  }
  int64_t elements() const noexcept {
    int64_t count = 1;
    for (int axis = 0; axis < rank; ++axis) count *= shape[axis];
    return count;
  }
  int64_t columns() const noexcept { return rank ? shape[rank - 1] : 1; }  // the extent of the last axis
  int64_t rows() const noexcept {                                          // the product of all extents before the last
    int64_t count = 1;
    for (int axis = 0; axis + 1 < rank; ++axis) count *= shape[axis];
    return count;
  }
};

struct Shape {
  static constexpr int kMost = 64;
  int32_t rank = 0;
  int64_t extent[kMost];
};

// Sets of dtypes, as bits.
using DtypeSet = uint32_t;
constexpr DtypeSet only(Dtype dtype) noexcept { return DtypeSet{1} << static_cast<int>(dtype); }
inline constexpr DtypeSet kRealDtypes = only(Dtype::kFloat32) | only(Dtype::kFloat64);
// The dtypes of matrix products. Products of 16-bit floats are summed in float32.
inline constexpr DtypeSet kProductDtypes = kRealDtypes | only(Dtype::kFloat16) | only(Dtype::kBfloat16);
inline constexpr DtypeSet kAllDtypes = (DtypeSet{1} << kDtypes) - 1;
inline constexpr DtypeSet kClassNumberDtypes = only(Dtype::kInt32) | only(Dtype::kInt64);

enum class Access : uint8_t { kRead, kWrite, kUpdate };  // kUpdate: the op reads and writes it

// Which layouts a kernel accepts without a copy. Callers copy arrays of other layouts.
enum class Layout : uint8_t {
  kDense,   // C-contiguous
  kMatrix,  // either dimension of a matrix may be the contiguous one; other ranks are as in kDense
  kRows,    // a matrix may have gaps between its rows; other ranks are as in kDense
};

struct Operand {
  const char* name;
  Access access = Access::kRead;
  DtypeSet dtypes = 0;          // the dtypes it may have; 0: that of operand same_dtype
  int8_t same_dtype = -1;       // it has the dtype of this operand
  int8_t dtype_attribute = -1;  // a result has the dtype that this attribute names
  bool or_float32 = false;      // it may also be float32 if operand same_dtype is a 16-bit float
  int8_t like = -1;             // it has the shape of this operand; -1: OpSchema::shape or check decides
  bool optional = false;
  Layout layout = Layout::kDense;
  int8_t least_rank = 0;
  int8_t most_rank = Shape::kMost;
  // Whether this result needs memory of its own. If not, it may lie in an input's memory, because the op reads each element
  // before it writes it.
  bool apart = false;
  DtypeSet widened = 0;   // dtypes that callers convert to int64
  int8_t rows_like = -1;  // if the layout is kRows, the rows are as far apart as those of this operand
  // The operand is this scalar field of the step record: dtypes and shapes above do not apply. Eager calls omit it.
  StepField step = StepField::kNone;
  bool undefined = false;      // the op leaves this result undefined, and only uses its memory
  int8_t column_sums_of = -1;  // this optional result has the sums over the rows of that result
  double bound = std::numeric_limits<double>::infinity();  // no element of this result is larger
};

// kResource: an entry of the program's table of resources.
enum class AttributeType : uint8_t { kInt, kReal, kFlag, kChoice, kSeed, kResource, kDtype };

union AttributeValue {
  // The value of a kInt; for kFlag 0 or 1; for kChoice the position among the choices; for kSeed 64 bits; for kResource
  // the number of the entry; for kDtype a Dtype.
  int64_t integer;
  double real;  // the value of a kReal
};
constexpr AttributeValue integer_value(int64_t value) noexcept { return {.integer = value}; }
constexpr AttributeValue real_value(double value) noexcept { return {.real = value}; }

struct Attribute {
  const char* name;
  AttributeType type;
  AttributeValue otherwise = integer_value(0);
  bool required = false;
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool below_most = false;                 // `most` itself is refused
  std::span<const char* const> choices{};  // the words of a kChoice
  // It says how the op computes, and not what: formulas do not know it. Eager calls that are not given it use default_products().
  bool method = false;
};

struct OpSchema;

// One call of an op: its operands and attributes, in the schema's order.
struct OpCall {
  const OpSchema* op = nullptr;
  const char* name = nullptr;                  // the name of the op in errors
  const char* const* operand_names = nullptr;  // the names of its operands in errors; null: those of the schema
  const Tensor* tensors = nullptr;
  const AttributeValue* attributes = nullptr;
  StepRecord* step = nullptr;            // in a program: the record of the lane that runs the call
  Resource* const* resources = nullptr;  // in a program: its resources

  const Tensor& operator[](int operand) const noexcept { return tensors[operand]; }
  int64_t integer(int attribute) const noexcept { return attributes[attribute].integer; }
  double real(int attribute) const noexcept { return attributes[attribute].real; }
  bool flag(int attribute) const noexcept { return attributes[attribute].integer != 0; }
  template <class T>
  T value(int operand) const noexcept {  // Returns the value of an operand that is a field of the step record.
    return *tensors[operand].as<const T>();
  }
  template <class R>
  R& resource(int attribute) const noexcept {
    return *static_cast<R*>(resources[attributes[attribute].integer]);
  }
  inline const char* operand_name(int operand) const noexcept;
};

// What a call needs: lanes, time and memory.
struct OpWork {
  int lanes = 1;          // how many lanes are worth waking
  double operations = 0;  // about 80 take a nanosecond on one core
  ScratchBytes scratch;   // for that many lanes or, if `awake` is true, for all offered lanes
  // Whether the call is part of a program, whose lanes are awake and all run the call.
  bool awake = false;
  // Whether only lane 0 of a program should make the call, because sharing it takes longer than it saves. Without a value, lane 0
  // makes it alone if `lanes` is 1.
  std::optional<bool> alone;
};

// The entry point of a kernel, which every lane calls with the same call. It does not allocate, throw or lock.
using OpRun = void (*)(const Lane& lane, const OpCall& call) noexcept;

// The parts of a step, in their order, as bits.
namespace phase {
enum : uint8_t { kForward = 1, kLoss = 2, kCheck = 4, kBackward = 8, kUpdate = 16 };
}
inline constexpr const char* kPhaseNames[] = {"forward", "loss", "check", "backward", "update"};

// What an op can do to a result before it writes it: apply an activation, or multiply by the derivative of one.
struct Epilogue {
  int8_t attribute = -1;  // names the activation; -1: the op cannot
  int8_t result = -1;
  // If the op applies an activation, the optional result that keeps its input; if it multiplies by a derivative, the
  // source of that.
  int8_t other = -1;
};

// Work that one op does alone, and that another can do on its own result: passes then remove the first op.
enum class PartKind : uint8_t { kNone, kActivation, kDerivative, kColumnSums, kCopy };
inline constexpr const char* kPartNames[] = {"", "activation", "derivative", "column_sums", "copy"};

// Describes an op that does such work and nothing else.
struct Part {
  PartKind kind = PartKind::kNone;
  int8_t attribute = -1;  // names the activation
  int8_t input = -1;
  int8_t other = -1;  // the source, if the part is a derivative
  int8_t result = -1;
};

// Labels and ids: integers that must be at least 0 and below the extent of an axis. If not, the step has a fault.
struct Limit {
  int8_t operand = -1;  // the integers
  int8_t below = -1;    // the operand whose axis limits them
  int8_t axis = 0;      // the number of that axis; -1: the last
};

// An op that does the work of two: `product` makes a gradient, and `update` applies it.
struct FusedUpdate {
  const char* product = nullptr;
  const char* update = nullptr;
};

struct OpSchema {
  const char* name;
  std::span<const Operand> operands;
  std::span<const Attribute> attributes;

  // Checks what the declarations of operands and attributes cannot express. Results may be absent. Throws Error.
  void (*check)(const OpCall& call) = nullptr;
  // The shape of a result that is not like another operand. The inputs have passed `check`.
  void (*shape)(const OpCall& call, int operand, Shape* shape) = nullptr;
  // Says how much work the call is. Results may be absent, if they do not exist yet.
  void (*work)(const OpCall& call, int lanes, OpWork* work) = nullptr;
  // Multiplications and additions, for tables that people read.
  double (*flops)(const OpCall& call) = nullptr;
  // Bytes that go between memory and a core whose caches are cold. Null: all of each operand that is read or written, and
  // twice of one that is updated; an operand that is `undefined` counts for nothing.
  double (*bytes)(const OpCall& call) = nullptr;
  // The kernel for the dtypes of this call; null if there is none. For CUDA see cuda_kernels.h.
  OpRun (*cpu)(const OpCall& call) noexcept = nullptr;
  // A second kernel, which begins when all lanes have ended the first.
  OpRun (*cpu_second)(const OpCall& call) noexcept = nullptr;
  bool each = false;  // there is no barrier, and lanes may be missing: see TeamLease::run_each
  // Throws Error if the data made the call fail, such as a label outside its range.
  void (*verify)(const OpCall& call) = nullptr;
  // Computes the mean or the sum over the samples from a loss's totals.
  double (*number)(const OpCall& call) = nullptr;

  // Facts that passes over graphs and programs use.
  uint8_t phases = phase::kForward | phase::kBackward;  // the phases of a step in which it may be used
  bool program_only = false;                            // it has no eager function
  bool effects = false;  // it does more than write results: no pass may clone it, drop it or reorder it
  // Each element of its result depends on the same element of each array: over arrays that lie side by side, it means the same as
  // one such op for each of them.
  bool elementwise = false;
  bool every_lane = false;  // each lane runs it for itself: it reads few numbers and writes the lane's step record
  Epilogue epilogue{};
  Epilogue derivative_epilogue{};
  FusedUpdate fuses{};
  Part part{};
  Limit limit{};
};

inline const char* OpCall::operand_name(int operand) const noexcept {
  const auto i = static_cast<size_t>(operand);
  return operand_names && operand_names[i] ? operand_names[i] : op->operands[i].name;
}

inline constexpr size_t kMostOps = 256;

// All ops, in the order of their folders' names. CMake makes this list from the folders.
GRADRING_API std::span<const OpSchema* const> all_ops() noexcept;
// Finds an op by its name. Returns null if there is none.
GRADRING_API const OpSchema* find_schema(std::string_view name) noexcept;
GRADRING_API int find_operand(const OpSchema& op, std::string_view name) noexcept;    // -1 if there is none
GRADRING_API int find_attribute(const OpSchema& op, std::string_view name) noexcept;  // -1 if there is none

// Checks which operands are present, their dtypes, ranks and shapes, the attributes' ranges, then op.check. With
// `results`, results that are not optional must be there too. Throws Error that names op, operand and expectation.
GRADRING_API void check_call(const OpCall& call, bool results);
// Does only the part of check_call that concerns dtypes.
GRADRING_API void check_dtypes(const OpCall& call);
// The shape that a result must have.
GRADRING_API void result_shape(const OpCall& call, int operand, Shape* shape);

// Multiplications and additions, and bytes, as the schema declares them. The call must have passed check_call, with results.
GRADRING_API double count_flops(const OpCall& call);
GRADRING_API double count_bytes(const OpCall& call);
// Functions for OpSchema::bytes: how many bytes all operands, or one of them, add if the op does not declare them.
double all_operand_bytes(const OpCall& call) noexcept;
double operand_bytes(const OpCall& call, int operand) noexcept;

// These functions make parts of error messages.
GRADRING_API std::string shape_text(int rank, const int64_t* shape);  // "(3, 4)"
GRADRING_API std::string dtypes_text(DtypeSet dtypes);                // "float32 or float64"
inline std::string shape_text(const Tensor& tensor) { return shape_text(tensor.rank, tensor.shape); }
// Throws Error(kInvalidArgument, "[op] " + text), where op is the name of the call's op.
[[noreturn]] GRADRING_API void refuse(const OpCall& call, const std::string& text);
// Throws Error with the text "[op] first is (..), second is (..): must".
[[noreturn]] void refuse_shapes(const OpCall& call, int first, int second, const std::string& must);

// Checks that `vector`, if it is there, has one element for each of x's columns.
void check_columns(const OpCall& call, int x, int vector);
// Makes the shape of a vector that has one element for each of x's columns.
inline void column_shape(const OpCall& call, int x, Shape* shape) noexcept {
  shape->rank = 1;
  shape->extent[0] = call[x].columns();
}

// A function for OpSchema::cpu that chooses one kernel for all calls.
template <OpRun kRun>
OpRun always(const OpCall&) noexcept {
  return kRun;
}

// Whether this operand may have this dtype, where the operand whose dtype it takes has the dtype `other`.
constexpr bool takes_dtype(const Operand& operand, Dtype dtype, Dtype other) noexcept {
  return dtype == other || (operand.or_float32 && is_narrow(other) && dtype == Dtype::kFloat32);
}

// A function for OpSchema::cpu that chooses between kernels for the two real dtypes by the dtype of operand kOperand.
template <OpRun kFloat, OpRun kDouble, int kOperand = 0>
OpRun by_real(const OpCall& call) noexcept {
  switch (call[kOperand].dtype) {
    case Dtype::kFloat32: return kFloat;
    case Dtype::kFloat64: return kDouble;
    default: return nullptr;
  }
}

// The same with a third kernel, for 16-bit floats.
template <OpRun kFloat, OpRun kDouble, OpRun kNarrow>
OpRun by_product(const OpCall& call) noexcept {
  return is_narrow(call[0].dtype) ? kNarrow : by_real<kFloat, kDouble>(call);
}

}  // namespace gradring
