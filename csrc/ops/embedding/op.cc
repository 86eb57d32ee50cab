// The registration of embedding and embedding_vjp, and of check_ids, which makes a program's step fail if an id is no
// row.
#include "ops/op.h"

#include "ops/embedding/embedding.h"

namespace gradring {

namespace {

Ids ids_of(const Tensor& tensor) noexcept { return {tensor.data, tensor.dtype == Dtype::kInt64}; }

// The place of element i in its array as text, such as "(1, 3)".
std::string place_text(const Tensor& tensor, int64_t i) {
  Shape place;
  place.rank = tensor.rank;
  for (int axis = tensor.rank - 1; axis >= 0; --axis) {
    place.extent[axis] = i % tensor.shape[axis];
    i /= tensor.shape[axis];
  }
  std::string text;
  for (int axis = 0; axis < place.rank; ++axis) text += (axis ? ", " : "") + std::to_string(place.extent[axis]);
  return text;
}

// Throws if `fault` holds the position of an id that is not a row of the table.
void verify_ids(const OpCall& call, int ids, int64_t rows, const Tensor& fault) {
  if (!fault || *fault.as<const int64_t>() < 0) return;
  const Tensor& tensor = call[ids];
  const int64_t i = *fault.as<const int64_t>();
  const std::string name = call.operand_name(ids);
  const std::string place = tensor.rank ? name + "[" + place_text(tensor, i) + "]" : name;
  refuse(call, place + " is " + std::to_string(ids_of(tensor)[i]) + ": must be " +
                   (rows ? "between 0 and " + std::to_string(rows - 1) : "none, as the table has no rows"));
}

// Whether `rows` has the shape of `ids` and one axis more.
bool is_row_per_id(const Tensor& rows, const Tensor& ids) noexcept {
  bool fits = rows.rank == ids.rank + 1;
  for (int axis = 0; fits && axis < ids.rank; ++axis) fits = rows.shape[axis] == ids.shape[axis];
  return fits;
}

namespace forward {

enum { kIds, kTable, kY, kFault };
constexpr Operand kOperands[] = {
    {.name = "ids", .dtypes = kClassNumberDtypes, .most_rank = Shape::kMost - 1, .widened = only(Dtype::kUint8)},
    {.name = "table", .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "y", .access = Access::kWrite, .same_dtype = kTable, .apart = true},
    {.name = "fault", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .optional = true},
};

int64_t row_bytes(const OpCall& call) noexcept {
  return call[kTable].shape[1] * static_cast<int64_t>(size_of(call[kTable].dtype));
}

void run(const Lane& lane, const OpCall& call) noexcept {
  embedding(lane, {call[kIds].elements(), call[kTable].shape[0], row_bytes(call), ids_of(call[kIds]), call[kTable].data,
                   call[kY].data, call[kFault].as<int64_t>()});
}

void shape(const OpCall& call, int operand, Shape* shape) {
  shape->rank = 1;
  shape->extent[0] = 1;
  if (operand == kFault) return;
  const Tensor& ids = call[kIds];
  shape->rank = ids.rank + 1;
  for (int axis = 0; axis < ids.rank; ++axis) shape->extent[axis] = ids.shape[axis];
  shape->extent[ids.rank] = call[kTable].shape[1];
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t count = call[kIds].elements();
  work->lanes = embedding_lanes(count, row_bytes(call), lanes);
  work->operations = static_cast<double>(count) * (200 + 4 * static_cast<double>(row_bytes(call)));
}

double flops(const OpCall&) { return 0; }
// The op reads only the rows that the ids name, and not the whole table.
double bytes(const OpCall& call) { return operand_bytes(call, kIds) + 2 * operand_bytes(call, kY); }

void verify(const OpCall& call) { verify_ids(call, kIds, call[kTable].shape[0], call[kFault]); }

}  // namespace forward

namespace vjp {

enum { kDy, kIds, kDtable, kFault };
constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "ids", .dtypes = kClassNumberDtypes, .widened = only(Dtype::kUint8)},
    {.name = "dtable", .access = Access::kWrite, .same_dtype = kDy, .apart = true},
    {.name = "fault", .access = Access::kWrite, .dtypes = only(Dtype::kInt64), .optional = true},
};
// How many rows the table has. The limit keeps its size in bytes within 64 bits.
constexpr Attribute kAttributes[] = {
    {.name = "rows", .type = AttributeType::kInt, .required = true, .least = 0, .most = 1e15},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  embedding_vjp<T>(lane, {call[kIds].elements(), call.integer(0), call[kDy].columns(), ids_of(call[kIds]),
                          call[kDy].as<const T>(), call[kDtable].as<T>(), call[kFault].as<int64_t>()});
}

void check(const OpCall& call) {
  if (is_row_per_id(call[kDy], call[kIds])) return;
  refuse_shapes(call, kDy, kIds, "dy must have the shape of ids and one axis more");
}

void shape(const OpCall& call, int operand, Shape* shape) {
  shape->rank = operand == kFault ? 1 : 2;
  shape->extent[0] = operand == kFault ? 1 : call.integer(0);
  shape->extent[1] = call[kDy].columns();
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t count = call[kIds].elements(), rows = call.integer(0), columns = call[kDy].columns();
  work->lanes = embedding_vjp_lanes(count, rows, columns * static_cast<int64_t>(size_of(call[kDy].dtype)), lanes);
  work->scratch = embedding_vjp_scratch(count, rows);
  work->operations = static_cast<double>(count + rows) * (200 + 8 * static_cast<double>(columns));
}

double flops(const OpCall& call) { return static_cast<double>(call[kDy].elements()); }

void verify(const OpCall& call) { verify_ids(call, kIds, call.integer(0), call[kFault]); }

}  // namespace vjp

namespace check_ids {

// The operands: what embedding has written to `fault`, and the ids that it read.
enum { kIds, kFault };
constexpr Operand kOperands[] = {
    {.name = "ids", .dtypes = kClassNumberDtypes, .least_rank = 1},
    {.name = "fault", .dtypes = only(Dtype::kInt64), .least_rank = 1, .most_rank = 1},
};

// Every lane reads `fault` itself, so all lanes come to the same decision.
void run(const Lane&, const OpCall& call) noexcept {
  const int64_t i = *call[kFault].as<const int64_t>();
  if (i < 0) return;
  const Tensor& ids = call[kIds];
  const int64_t places = ids.elements() / ids.shape[0];
  StepRecord& step = *call.step;
  step.fault = Fault::kId;
  step.fault_row = i / places, step.fault_place = i % places, step.fault_value = ids_of(ids)[i];
}

void check(const OpCall& call) {
  if (call[kFault].shape[0] == 1) return;
  refuse(call, call.operand_name(kFault) + std::string(" is ") + shape_text(call[kFault]) + ": must be (1,)");
}

void work(const OpCall&, int, OpWork* work) { work->operations = 100; }

}  // namespace check_ids

}  // namespace

extern const OpSchema embedding_ops[] = {
    {.name = "embedding",
     .operands = forward::kOperands,
     .attributes = {},
     .shape = forward::shape,
     .work = forward::work,
     .flops = forward::flops,
     .bytes = forward::bytes,
     .cpu = always<forward::run>,
     .verify = forward::verify,
     .phases = phase::kForward,
     .limit = {.operand = forward::kIds, .below = forward::kTable, .axis = 0}},
    {.name = "embedding_vjp",
     .operands = vjp::kOperands,
     .attributes = vjp::kAttributes,
     .check = vjp::check,
     .shape = vjp::shape,
     .work = vjp::work,
     .flops = vjp::flops,
     .cpu = by_real<vjp::run<float>, vjp::run<double>>,
     .verify = vjp::verify,
     .phases = phase::kBackward},
    {.name = "check_ids",
     .operands = check_ids::kOperands,
     .attributes = {},
     .check = check_ids::check,
     .work = check_ids::work,
     .cpu = always<check_ids::run>,
     .phases = phase::kForward,
     .program_only = true,
     .effects = true,
     .every_lane = true},
};
extern const size_t embedding_op_count = std::size(embedding_ops);

}  // namespace gradring
