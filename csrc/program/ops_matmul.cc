// Instructions that are matrix products: a linear layer forward, its input's and its weight's gradient.
#include "ops/matmul/matmul.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// operands: a, b, c, bias, pre, mask source, column sums; the last four optional.
// integers: m, n, k, flags, activation, mask.
enum Operand { kA, kB, kC, kBias, kPre, kMaskSource, kColumnSums };
enum Integer { kM, kN, kK, kFlags, kActivation, kMask };
enum Flag : int64_t { kTransA = 1, kTransB = 2, kAccumulate = 4 };

template <class T>
MatmulArguments<T> arguments_of(const Instruction& i, const Frame* frame) noexcept {
  MatmulArguments<T> p;
  p.m = i.integers[kM];
  p.n = i.integers[kN];
  p.k = i.integers[kK];
  p.trans_a = i.integers[kFlags] & kTransA;
  p.trans_b = i.integers[kFlags] & kTransB;
  p.lda = p.trans_a ? p.m : p.k;
  p.ldb = p.trans_b ? p.k : p.n;
  p.ldc = p.n;
  p.epilogue.accumulate = i.integers[kFlags] & kAccumulate;
  p.epilogue.activation = static_cast<Activation>(i.integers[kActivation]);
  p.epilogue.mask = static_cast<Activation>(i.integers[kMask]);
  p.epilogue.mask_ld = p.n;
  if (frame != nullptr) {
    p.a = frame->get<const T>(i, kA);
    p.b = frame->get<const T>(i, kB);
    p.c = frame->get<T>(i, kC);
    p.epilogue.bias = frame->get<const T>(i, kBias);
    p.epilogue.pre = frame->get<T>(i, kPre);
    p.epilogue.mask_source = frame->get<const T>(i, kMaskSource);
    p.epilogue.column_sums = frame->get<T>(i, kColumnSums);
  }
  return p;
}

template <class T>
void run(const Lane& lane, const Instruction& instruction, Frame& frame) noexcept {
  matmul(lane, arguments_of<T>(instruction, &frame));
}

// The sizes decide; pointers that will be there are stood in for, in case the scratch depends on the epilogue.
template <class T>
ScratchBytes scratch_of(const Instruction& i, int lanes) {
  static T stand_in;
  auto p = arguments_of<T>(i, nullptr);
  if (i.operands[kBias] >= 0) p.epilogue.bias = &stand_in;
  if (i.operands[kPre] >= 0) p.epilogue.pre = &stand_in;
  if (i.operands[kMaskSource] >= 0) p.epilogue.mask_source = &stand_in;
  if (i.operands[kColumnSums] >= 0) p.epilogue.column_sums = &stand_in;
  return matmul_scratch(p, lanes);
}

ScratchBytes scratch(const Instruction& instruction, Dtype real, int lanes) {
  return real == Dtype::kFloat32 ? scratch_of<float>(instruction, lanes) : scratch_of<double>(instruction, lanes);
}

void accesses(const Instruction& i, Dtype real, AccessList* list) {
  const int64_t m = i.integers[kM], n = i.integers[kN], k = i.integers[kK];
  if (m < 0 || n < 0 || k < 0) throw Error(Code::kInvalidArgument, "[program] matmul: a negative size");
  const auto mask = static_cast<Activation>(i.integers[kMask]);
  if ((mask != Activation::kNone) != (i.operands[kMaskSource] >= 0)) {
    throw Error(Code::kInvalidArgument, "[program] matmul: a mask needs its source, and a source its mask");
  }
  const bool accumulates = i.integers[kFlags] & kAccumulate;
  list->add(kA, m * k, real, true, false);
  list->add(kB, k * n, real, true, false);
  list->add(kC, m * n, real, accumulates, true);
  if (i.operands[kBias] >= 0) list->add(kBias, n, real, true, false);
  if (i.operands[kPre] >= 0) list->add(kPre, m * n, real, false, true);
  if (i.operands[kMaskSource] >= 0) list->add(kMaskSource, m * n, real, true, false);
  if (i.operands[kColumnSums] >= 0) list->add(kColumnSums, n, real, false, true);
}

const OpEntry kOps[] = {{"matmul", Phase::kCompute, accesses, run<float>, run<double>, scratch}};

}  // namespace

OpSpan matmul_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
