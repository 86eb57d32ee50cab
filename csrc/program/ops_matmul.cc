// Instructions that are matrix products: a linear layer forward, its input's and its weight's gradient.
#include "ops/matmul/matmul.h"
#include "ops/sum_parts/sum_parts.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// operands: a, b, c, bias, pre, mask source, column sums, parts; the last five optional.
// integers: m, n, k, flags, activation, mask, cut.
// With parts (2 m n elements, for a plain product with bias and relu at most) k is cut in two halves, each the work of
// one half of the lanes, so that a lane reads only its own rows of B: those that it updates later in the step.
enum Operand { kA, kB, kC, kBias, kPre, kMaskSource, kColumnSums, kParts };
enum Integer { kM, kN, kK, kFlags, kActivation, kMask, kCut };
enum Flag : int64_t { kTransA = 1, kTransB = 2, kAccumulate = 4 };

constexpr int64_t kAtOnce = 1024;     // of k: each half of it is one chain of sums in the kernel
constexpr double kSoloWork = 262144;  // multiply-adds: a few microseconds, less than two lanes take to hand over

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
  p.cut = static_cast<Cut>(i.integers[kCut]);
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

// Half of k, its bias and activation left to the end.
template <class T>
MatmulArguments<T> part_of(const MatmulArguments<T>& whole, int part, T* c) noexcept {
  MatmulArguments<T> p = whole;
  const int64_t begin = part == 0 ? 0 : whole.k / 2;
  p.k = part == 0 ? whole.k / 2 : whole.k - whole.k / 2;
  if (whole.a) p.a = whole.a + (whole.trans_a ? begin * whole.lda : begin);
  if (whole.b) p.b = whole.b + (whole.trans_b ? begin : begin * whole.ldb);
  p.c = c;
  p.epilogue = {};
  return p;
}

template <class T>
void run_parts(const Lane& lane, const MatmulArguments<T>& p, T* parts) noexcept {
  if (lane.count == 1 && p.k <= kAtOnce) {
    // The second part adds to the first, by the kernel's own way of doing so.
    matmul(lane, part_of(p, 0, p.c));
    MatmulArguments<T> second = part_of(p, 1, p.c);
    second.epilogue = p.epilogue;
    second.epilogue.accumulate = true;
    return matmul(lane, second);
  }
  const int first = (lane.count + 1) / 2;  // lanes of part 0
  for (int part = 0; part < 2; ++part) {
    Lane own = lane;
    if (lane.count > 1) {
      if ((lane.index >= first) != (part == 1)) continue;
      own.index = part == 0 ? lane.index : lane.index - first;
      own.count = part == 0 ? first : lane.count - first;
    }
    matmul(own, part_of(p, part, parts + part * p.m * p.n));
  }
  lane.barrier();
  SumPartsArguments<T> sum;
  sum.rows = p.m;
  sum.columns = p.n;
  sum.first = parts;
  sum.second = parts + p.m * p.n;
  sum.bias = p.epilogue.bias;
  sum.relu = p.epilogue.activation == Activation::kRelu;
  sum.y = p.c;
  sum_parts(lane, sum);
}

template <class T>
void run(const Lane& lane, const Instruction& instruction, Frame& frame) noexcept {
  const auto p = arguments_of<T>(instruction, &frame);
  if (T* parts = frame.get<T>(instruction, kParts)) return run_parts(lane, p, parts);
  matmul(lane, p);
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
  if (i.operands[kParts] >= 0) return matmul_scratch(part_of(p, 1, static_cast<T*>(nullptr)), lanes);
  return matmul_scratch(p, lanes);
}

bool solo(const Instruction& i) noexcept {
  return static_cast<double>(i.integers[kM]) * static_cast<double>(i.integers[kN]) *
             static_cast<double>(i.integers[kK]) <=
         kSoloWork;
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
  const auto activation = static_cast<Activation>(i.integers[kActivation]);
  if (i.operands[kParts] >= 0 &&
      (i.operands[kPre] >= 0 || i.operands[kMaskSource] >= 0 || i.operands[kColumnSums] >= 0 ||
       (i.integers[kFlags] & kAccumulate) || (activation != Activation::kNone && activation != Activation::kRelu))) {
    throw Error(Code::kInvalidArgument, "[program] matmul: in parts only with bias and relu");
  }
  const bool accumulates = i.integers[kFlags] & kAccumulate;
  list->add(kA, m * k, real, true, false);
  list->add(kB, k * n, real, true, false);
  list->add(kC, m * n, real, accumulates, true);
  if (i.operands[kBias] >= 0) list->add(kBias, n, real, true, false);
  if (i.operands[kPre] >= 0) list->add(kPre, m * n, real, false, true);
  if (i.operands[kMaskSource] >= 0) list->add(kMaskSource, m * n, real, true, false);
  if (i.operands[kColumnSums] >= 0) list->add(kColumnSums, n, real, false, true);
  if (i.operands[kParts] >= 0) list->add(kParts, 2 * m * n, real, false, true);
}

const OpEntry kOps[] = {{"matmul", Phase::kCompute, accesses, run<float>, run<double>, scratch, solo}};

}  // namespace

OpSpan matmul_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
