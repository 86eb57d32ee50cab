// Instructions that compute a weight's gradient and update the weight with it, tile by tile while the gradient is hot:
// the gradient never goes to memory. The reader of an old weight must come before, as with any write.
#include "ops/adam/adam.h"
#include "ops/matmul/matmul.h"
#include "ops/sgd/sgd.h"
#include "program/op_table.h"
#include "runtime/status.h"

namespace gradring {

namespace {

// operands: x (k x m), dy (k x n), gradient (m x n: space for partial sums, left undefined), param, then the optimizer's state. integers: m, n, k, then the optimizer's.
enum Operand { kX, kDy, kGradient, kParam, kFirstState, kSecondState };
enum Integer { kM, kN, kK, kVariant };

template <class T>
MatmulArguments<T> product(const Instruction& i, const Frame* frame) noexcept {
  MatmulArguments<T> p;
  p.m = i.integers[kM];
  p.n = i.integers[kN];
  p.k = i.integers[kK];
  p.trans_a = true;
  p.cut = Cut::kRows;  // of the parameter
  p.lda = p.m;
  p.ldb = p.ldc = p.n;
  if (frame != nullptr) {
    p.a = frame->get<const T>(i, kX);
    p.b = frame->get<const T>(i, kDy);
    p.c = frame->get<T>(i, kGradient);
  }
  return p;
}

bool solo(const Instruction& i) noexcept {
  return static_cast<double>(i.integers[kM]) * static_cast<double>(i.integers[kN]) *
             static_cast<double>(i.integers[kK]) <=
         131072;
}

ScratchBytes scratch(const Instruction& i, Dtype real, int lanes) {
  if (real == Dtype::kFloat32) return matmul_scratch(product<float>(i, nullptr), lanes);
  return matmul_scratch(product<double>(i, nullptr), lanes);
}

// matmul_sgd: state: velocity, optional; integers: nesterov; reals: momentum, weight decay.
template <class T>
void sgd(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  auto p = product<T>(i, &frame);
  SgdMatrix<T> matrix;
  matrix.columns = p.n;
  matrix.whole.param = frame.get<T>(i, kParam);
  matrix.whole.velocity = frame.get<T>(i, kFirstState);
  matrix.whole.lr = frame.step.learning_rate;
  matrix.whole.momentum = i.reals[0];
  matrix.whole.nesterov = i.integers[kVariant] != 0;
  matrix.whole.weight_decay = i.reals[1];
  p.epilogue.consumer = {
      sgd_tile_update<T>(), &matrix, {matrix.whole.param, matrix.whole.velocity}, p.n, &matrix.whole};
  matmul(lane, p);
}

// matmul_adam: state: m, v; integers: decoupled; reals: beta1, beta2, eps, weight decay.
template <class T>
void adam(const Lane& lane, const Instruction& i, Frame& frame) noexcept {
  auto p = product<T>(i, &frame);
  AdamMatrix<T> matrix;
  matrix.columns = p.n;
  AdamArguments<T>& whole = matrix.whole;
  whole.param = frame.get<T>(i, kParam);
  whole.m = frame.get<T>(i, kFirstState);
  whole.v = frame.get<T>(i, kSecondState);
  whole.step = frame.step.number;
  whole.lr = frame.step.learning_rate;
  whole.beta1 = i.reals[0];
  whole.beta2 = i.reals[1];
  whole.eps = i.reals[2];
  whole.weight_decay = i.reals[3];
  whole.decoupled = i.integers[kVariant] != 0;
  matrix.factors = adam_factors(whole.step, whole.lr, whole.beta1, whole.beta2);
  p.epilogue.consumer = {adam_tile_update<T>(), &matrix, {whole.param, whole.m, whole.v}, p.n};
  matmul(lane, p);
}

void common_accesses(const Instruction& i, Dtype real, AccessList* list) {
  const int64_t m = i.integers[kM], n = i.integers[kN], k = i.integers[kK];
  if (m < 0 || n < 0 || k < 0) throw Error(Code::kInvalidArgument, "[program] matmul with an update: a negative size");
  list->add(kX, k * m, real, true, false);
  list->add(kDy, k * n, real, true, false);
  list->add(kGradient, m * n, real, false, true);
  list->add(kParam, m * n, real, true, true);
}

void sgd_accesses(const Instruction& i, Dtype real, AccessList* list) {
  common_accesses(i, real, list);
  const bool velocity = i.operands[kFirstState] >= 0;
  if (!velocity && i.reals[0] != 0) {
    throw Error(Code::kInvalidArgument, "[program] matmul_sgd: momentum needs a velocity");
  }
  if (velocity) list->add(kFirstState, i.integers[kM] * i.integers[kN], real, true, true);
}

void adam_accesses(const Instruction& i, Dtype real, AccessList* list) {
  common_accesses(i, real, list);
  list->add(kFirstState, i.integers[kM] * i.integers[kN], real, true, true);
  list->add(kSecondState, i.integers[kM] * i.integers[kN], real, true, true);
}

const OpEntry kOps[] = {
    {"matmul_sgd", Phase::kCompute, sgd_accesses, sgd<float>, sgd<double>, scratch, solo},
    {"matmul_adam", Phase::kCompute, adam_accesses, adam<float>, adam<double>, scratch, solo},
};

}  // namespace

OpSpan matmul_update_ops() noexcept { return {std::begin(kOps), std::end(kOps)}; }

}  // namespace gradring
