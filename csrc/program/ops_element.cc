// Instructions that work element by element or sum columns.
#include <cstring>

#include "ops/activation/activation.h"
#include "ops/column_sums/column_sums.h"
#include "ops/dropout/dropout.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// activation: operands x, y; integers elements, kind.
template <class T>
void forward(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  ActivationArguments<T> p;
  p.activation = static_cast<Activation>(i.integers[1]);
  p.n = i.integers[0];
  p.x = frame.get<const T>(i, 0);
  p.y = frame.get<T>(i, 1);
  activation_forward(lane, p);
}

// activation_vjp: operands dy, source, dx; integers elements, kind.
template <class T>
void vjp(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  ActivationVjpArguments<T> p;
  p.activation = static_cast<Activation>(i.integers[1]);
  p.n = i.integers[0];
  p.dy = frame.get<const T>(i, 0);
  p.source = frame.get<const T>(i, 1);
  p.dx = frame.get<T>(i, 2);
  activation_vjp(lane, p);
}

// add: operands a, b, out (which may be a or b); integers elements.
template <class T>
void add(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const T* a = frame.get<const T>(i, 0);
  const T* b = frame.get<const T>(i, 1);
  T* out = frame.get<T>(i, 2);
  const Range range = split(lane, i.integers[0], kFlatGrain);
  for (int64_t e = range.begin; e < range.end; ++e) out[e] = a[e] + b[e];
}

// copy: operands from, to; integers elements.
template <class T>
void copy(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  const Range range = split(lane, i.integers[0], kFlatGrain);
  if (range.end <= range.begin) return;
  const auto bytes = static_cast<size_t>(range.end - range.begin) * sizeof(T);
  std::memcpy(frame.get<T>(i, 1) + range.begin, frame.get<const T>(i, 0) + range.begin, bytes);
}

void one_to_one(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  list->add(1, i.integers[0], real, false, true);
}

void two_to_one(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0], real, true, false);
  list->add(1, i.integers[0], real, true, false);
  list->add(2, i.integers[0], real, false, true);
}

// column_sums: operands x (rows x columns), sums; integers rows, columns.
template <class T>
void sum_columns(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  ColumnSumsArguments<T> p;
  p.rows = i.integers[0];
  p.columns = p.ldx = i.integers[1];
  p.x = frame.get<const T>(i, 0);
  p.sums = frame.get<T>(i, 1);
  column_sums(lane, p);
}

void column_sums_accesses(const Instruction& i, Dtype real, AccessList* list) {
  list->add(0, i.integers[0] * i.integers[1], real, true, false);
  list->add(1, i.integers[1], real, false, true);
}

// dropout: operands x, y; integers rows, columns, layer; reals p. The backward pass is the same instruction on dy.
template <class T>
void drop(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  DropoutArguments<T> p;
  p.rows = i.integers[0];
  p.columns = i.integers[1];
  p.layer = static_cast<uint32_t>(i.integers[2]);
  p.p = i.reals[0];
  p.x = frame.get<const T>(i, 0);
  p.y = frame.get<T>(i, 1);
  p.samples = frame.batch->samples;
  p.first_sample = frame.batch->position;
  p.seed = frame.step.seed;
  p.epoch = static_cast<uint32_t>(frame.step.draw);
  dropout(lane, p);
}

void dropout_accesses(const Instruction& i, Dtype real, AccessList* list) {
  if (!(i.reals[0] >= 0 && i.reals[0] < 1))
    throw Error(Code::kInvalidArgument, "[program] dropout: p is not in [0, 1)");
  list->add(0, i.integers[0] * i.integers[1], real, true, false);
  list->add(1, i.integers[0] * i.integers[1], real, false, true);
}

const OpEntry kOps[] = {
    {"activation", Phase::kCompute, one_to_one, forward<float>, forward<double>, nullptr},
    {"activation_vjp", Phase::kCompute, two_to_one, vjp<float>, vjp<double>, nullptr},
    {"add", Phase::kCompute, two_to_one, add<float>, add<double>, nullptr},
    {"copy", Phase::kCompute, one_to_one, copy<float>, copy<double>, nullptr},
    {"column_sums", Phase::kCompute, column_sums_accesses, sum_columns<float>, sum_columns<double>, nullptr},
    {"dropout", Phase::kCompute, dropout_accesses, drop<float>, drop<double>, nullptr},
};

}  // namespace

OpSpan element_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
