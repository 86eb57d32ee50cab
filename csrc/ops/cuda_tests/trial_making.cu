// Makes trials: operands with random shapes, layouts, places and values.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <map>
#include <utility>

#include "cuda/device.h"
#include "ops/cast/half.h"
#include "ops/cuda_tests/trial.h"
#include "ops/cuda_tests/trial_call.h"
#include "ops/register_cuda.h"

namespace gradring::testing {

namespace {

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}

}  // namespace

void prepare(const Trial& trial, bool widened, const std::vector<void*>& data, StepRecord* record, Prepared* p) {
  const size_t count = trial.operands.size();
  p->shapes.resize(count), p->strides.resize(count), p->tensors.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const Given& given = trial.operands[i];
    if (given.dtype == kNoDtype) continue;
    p->shapes[i] = given.shape;
    const Dtype dtype = is_field(*trial.op, i) ? given.dtype : trial.stored_as(given.dtype, widened);
    const auto size = static_cast<int64_t>(size_of(dtype));
    auto stride = size;
    p->strides[i].resize(given.shape.size());
    for (size_t axis = given.shape.size(); axis-- > 0;) {
      p->strides[i][axis] = stride;
      stride *= given.shape[axis];
    }
    if (given.turned) {
      p->strides[i] = {size, (given.shape[0] + given.gap) * size};
    } else if (given.gap > 0) {
      p->strides[i][0] = (given.shape[1] + given.gap) * size;
    }
    p->tensors[i] = {data[i], p->shapes[i].data(), p->strides[i].data(), static_cast<int32_t>(given.shape.size()),
                     dtype};
  }
  p->call.op = trial.op, p->call.name = trial.op->name, p->call.tensors = p->tensors.data();
  p->call.attributes = trial.attributes.data(), p->call.step = record;
}

int64_t Given::count() const { return elements(shape); }

int64_t Given::stored() const {
  return gap == 0 ? count() : shape[turned] == 0 ? 0 : shape[turned] * (shape[!turned] + gap);
}

size_t Given::place(size_t element) const {
  if (gap == 0 && !turned) return element;
  const auto columns = static_cast<size_t>(shape[1]), rows = static_cast<size_t>(shape[0]),
             more = static_cast<size_t>(gap);
  const auto all = static_cast<size_t>(count());
  const size_t inner = turned ? rows : columns;
  if (element >= all) return (element - all) / more * (inner + more) + inner + (element - all) % more;
  const size_t row = element / columns, column = element % columns;
  return turned ? column * (rows + more) + row : row * (columns + more) + column;
}

Trial::Trial(const char* name, Dtype real) : op(find_schema(name)), dtype(real) {
  static const bool registered = [] {
    register_all_cuda_kernels();
    return true;
  }();
  REQUIRE(registered);
  REQUIRE(op != nullptr);
  operands.resize(op->operands.size()), wanted.resize(op->operands.size());
  lies_on.assign(op->operands.size(), -1), offsets.assign(op->operands.size(), 0);
  for (const Attribute& attribute : op->attributes) attributes.push_back(attribute.otherwise);
  if (real == Dtype::kFloat64) tolerance = 1e-11;
  if (real == Dtype::kBfloat16) tolerance = 1e-2;
  if (real == Dtype::kFloat16) tolerance = 2e-3;
}

Dtype Trial::stored_as(Dtype given, bool widened) const {
  const bool widens = given == Dtype::kFloat32 || (is_narrow(given) && dtype == given);
  return widened && widens ? Dtype::kFloat64 : given;
}

double Trial::as_stored(double value) const {
  if (dtype == Dtype::kBfloat16) return static_cast<double>(bfloat_to_float(bfloat_from(value)));
  if (dtype == Dtype::kFloat16) return static_cast<double>(half_to_float(half_from(value)));
  return dtype == Dtype::kFloat32 ? static_cast<double>(static_cast<float>(value)) : value;
}

bool Trial::knows(const char* operand) const { return find_operand(*op, operand) >= 0; }

int Trial::place(const char* operand) const {
  const int i = find_operand(*op, operand);
  INFO(op->name, " ", operand);
  REQUIRE(i >= 0);
  return i;
}

void Trial::set(const char* attribute, double value) {
  const int i = find_attribute(*op, attribute);
  INFO(op->name, " ", attribute);
  REQUIRE(i >= 0);
  const bool is_real = op->attributes[static_cast<size_t>(i)].type == AttributeType::kReal;
  attributes[static_cast<size_t>(i)] = is_real ? real_value(value) : integer_value(static_cast<int64_t>(value));
}

void Trial::give(Random& random, const char* operand, std::vector<int64_t> shape, double scale, double offset) {
  std::normal_distribution<double> normal(offset, scale);
  Given& given = at(operand);
  given.dtype = dtype, given.shape = std::move(shape);
  given.values.resize(static_cast<size_t>(elements(given.shape)));
  for (double& value : given.values) {
    value = as_stored(normal(random));
  }
}

void Trial::give(Random& random, const char* operand, std::vector<int64_t> shape, Dtype type, int64_t low,
                 int64_t high) {
  Given& given = at(operand);
  given.dtype = type, given.shape = std::move(shape);
  given.values.resize(static_cast<size_t>(elements(given.shape)));
  for (double& value : given.values) value = static_cast<double>(between(random, low, high));
}

void Trial::make_positive(const char* operand) {
  for (double& value : at(operand).values) value = as_stored(std::fabs(value) + 0.25);
}

void Trial::spoil(Random& random, const char* operand) {
  auto& values = at(operand).values;
  if (values.empty()) return;
  spoiled = true;
  const double odd[] = {std::nan(""), INFINITY, -INFINITY};
  for (int64_t i = 0; i < between(random, 1, 3); ++i) {
    values[static_cast<size_t>(between(random, 0, static_cast<int64_t>(values.size()) - 1))] =
        odd[between(random, 0, 2)];
  }
}

void Trial::complete(Random& random) {
  const bool aligned = chance(random, 2);
  processors = chance(random, 2) ? 1 : 2;
  for (size_t i = 0; i < operands.size(); ++i) {
    const Operand& operand = op->operands[i];
    Given& given = operands[i];
    if (operand.step != StepField::kNone) {
      if (operand.optional && !wanted[i]) continue;
      given.dtype = kStepFields[static_cast<size_t>(operand.step)].dtype;
      given.values = {0};
      continue;
    }
    if (is_result(*op, i)) {
      if (operand.optional && !wanted[i]) continue;
      given.dtype = operand.dtype_attribute >= 0
                        ? static_cast<Dtype>(attributes[static_cast<size_t>(operand.dtype_attribute)].integer)
                    : operand.same_dtype >= 0                 ? operands[static_cast<size_t>(operand.same_dtype)].dtype
                    : operand.dtypes == only(Dtype::kFloat64) ? Dtype::kFloat64
                                                              : Dtype::kInt64;
      Prepared p;
      prepare(*this, false, std::vector<void*>(operands.size()), &record, &p);
      Shape shape;
      result_shape(p.call, static_cast<int>(i), &shape);
      given.shape.assign(shape.extent, shape.extent + shape.rank);
      if (!operand.apart && operand.like >= 0 && chance(random, 4) &&
          operands[static_cast<size_t>(operand.like)].dtype == given.dtype &&
          op->operands[static_cast<size_t>(operand.like)].access == Access::kRead) {
        lies_on[i] = operand.like;
      }
    } else if (given.dtype == kNoDtype && operand.like >= 0 && (!operand.optional || wanted[i])) {
      give(random, operand.name, operands[static_cast<size_t>(operand.like)].shape);
    }
    if (given.dtype == kNoDtype) continue;
    // Beside 16-bit floats, some operands may be float32, which holds what is given.
    if (operand.or_float32 && is_narrow(given.dtype) && chance(random, 2)) given.dtype = Dtype::kFloat32;
    const bool in_parts = knows("parts") && wanted[static_cast<size_t>(place("parts"))];  // then rows lie side by side
    if (operand.layout != Layout::kDense && given.shape.size() == 2 && !(in_parts && is_result(*op, i))) {
      if (chance(random, 2)) given.gap = between(random, 1, 5);
      given.turned = operand.layout == Layout::kMatrix && chance(random, 3);
      if (operand.rows_like >= 0) given.gap = operands[static_cast<size_t>(operand.rows_like)].gap;
    }
    const auto size = static_cast<int64_t>(size_of(given.dtype));
    if (!aligned && size <= 8) offsets[i] = static_cast<int>(between(random, 0, 16 / size - 1) * size);
  }
  // Let at most one result share an operand's memory.
  for (size_t i = 0; i < lies_on.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (lies_on[i] >= 0 && lies_on[i] == lies_on[k]) lies_on[i] = -1;
    }
  }
}

std::string Trial::text() const {
  std::string text = std::string("[") + op->name + "]";
  for (size_t i = 0; i < operands.size(); ++i) {
    if (operands[i].dtype == kNoDtype) continue;
    text += std::string(" ") + op->operands[i].name + " " + dtype_name(operands[i].dtype) +
            shape_text(static_cast<int>(operands[i].shape.size()), operands[i].shape.data()) + "+" +
            std::to_string(offsets[i]);
    if (operands[i].gap > 0) text += " gap " + std::to_string(operands[i].gap);
    if (operands[i].turned) text += " turned";
    if (lies_on[i] >= 0) text += " on " + std::to_string(lies_on[i]);
  }
  return text;
}

int64_t edge(Random& random, int64_t most) {
  const int64_t edges[] = {0,   1,   2,   3,    4,    5,    7,    8,    9,    15,   16,  17,
                           31,  32,  33,  63,   64,   65,   127,  128,  129,  255,  256, 257,
                           511, 512, 513, 1023, 1024, 1025, 2047, 2049, 4095, 4096, 4097};
  static std::map<int64_t, size_t> next;  // by `most`: which edge is next
  if (chance(random, 3)) return between(random, 0, most);
  size_t& at = next[most];
  while (edges[at % std::size(edges)] > most) ++at;
  return edges[at++ % std::size(edges)];
}

int shapes() {
  const char* text = std::getenv("GRADRING_CUDA_SHAPES");
  return text ? std::max(1, std::atoi(text)) : 12;
}

}  // namespace gradring::testing
