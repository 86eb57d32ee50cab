// The registration of linear_dw_sgd and linear_dw_adam: they compute a weight's gradient and update the weight with it, tile
// by tile while the gradient is in the cache, so the gradient never goes to memory. An op that reads the old weight must come
// before this one, as with any write. `dw` is space for partial sums, and is left undefined.
#include "ops/adam/adam.h"
#include "ops/adam/step.h"
#include "ops/linear/weight_product.h"
#include "ops/matmul/products_attribute.h"
#include "ops/matrix_view.h"
#include "ops/sgd/consumer.h"
#include "ops/sgd/step.h"

namespace gradring {

namespace {

constexpr double kAloneMultiplications = 131072;

// x, dy and param come first in both.
enum { kX, kDy, kParam };

void check_product(const OpCall& call) {
  check_same_rows(call, kX, kDy);
  const Tensor& param = call[kParam];
  const int64_t rows = call[kX].columns(), columns = call[kDy].columns();
  if (param.shape[0] == rows && param.shape[1] == columns) return;
  refuse(call, call.operand_name(kParam) + std::string(" is ") + shape_text(param) + ", x is " + shape_text(call[kX]) +
                   ", dy is " + shape_text(call[kDy]) + ": param must be (" + std::to_string(rows) + ", " +
                   std::to_string(columns) + ")");
}

template <int kDw, int kProducts>
void work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor &x = call[kX], &dy = call[kDy], &dw = call[kDw];
  const Products products = products_of(call, kProducts);
  x.dtype == Dtype::kFloat32
      ? product_work(weight_product<float>(x, dy, dw, products), lanes, kAloneMultiplications, work)
      : product_work(weight_product<double>(x, dy, dw, products), lanes, kAloneMultiplications, work);
}

double product_flops(const OpCall& call) {
  return product_operations(call[kX].columns(), call[kDy].columns(), call[kX].rows());
}

constexpr Operand kProductX = {.name = "x", .dtypes = kRealDtypes, .least_rank = 1};
constexpr Operand kProductDy = {.name = "dy", .same_dtype = kX, .least_rank = 1};
constexpr Operand kUpdated = {
    .name = "param", .access = Access::kUpdate, .same_dtype = kX, .least_rank = 2, .most_rank = 2};
constexpr Operand kSpace = {
    .name = "dw", .access = Access::kWrite, .same_dtype = kX, .like = kParam, .apart = true, .undefined = true};
constexpr Operand kRate = {.name = "lr", .step = StepField::kLearningRate};
constexpr Operand kFinite = {.name = "finite", .step = StepField::kFinite};
constexpr Operand kBounded = {.name = "bounded", .optional = true, .step = StepField::kBounded};
constexpr Operand state(const char* name, bool optional = false) {
  return {.name = name, .access = Access::kUpdate, .same_dtype = kX, .like = kParam, .optional = optional};
}

namespace with_sgd {

inline constexpr int kProducts = static_cast<int>(std::size(kSgdStepAttributes));
constexpr auto kAttributes = with_products(kSgdStepAttributes);

enum { kVelocity = kParam + 1, kLr, kIsFinite, kIsBounded, kDw };
constexpr Operand kOperands[] = {kProductX, kProductDy, kUpdated, state("momentum", true),
                                 kRate,     kFinite,    kBounded, kSpace};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  auto p = weight_product<T>(call[kX], call[kDy], call[kDw], products_of(call, kProducts));
  SgdMatrix<T> matrix;
  matrix.columns = p.n;
  matrix.whole.param = call[kParam].as<T>(), matrix.whole.velocity = call[kVelocity].as<T>();
  set_sgd_attributes(call, &matrix.whole);
  matrix.whole.lr = learning_rate(call, kLr, kSgdRate);
  p.epilogue.consumer = sgd_consumer(matrix);
  matmul(lane, p);
}

void check(const OpCall& call) {
  check_product(call);
  check_velocity(call, kVelocity);
}

double flops(const OpCall& call) { return product_flops(call) + sgd_flops(call, call[kParam].elements()); }

}  // namespace with_sgd

namespace with_adam {

inline constexpr int kProducts = static_cast<int>(std::size(kAdamStepAttributes));
constexpr auto kAttributes = with_products(kAdamStepAttributes);

enum { kM = kParam + 1, kV, kVmax, kNumber, kLr, kIsFinite, kIsBounded, kDw };
constexpr Operand kNumberOf = {.name = "number", .step = StepField::kNumber};
constexpr Operand kOperands[] = {kProductX, kProductDy, kUpdated, state("m"), state("v"), state("vmax", true),
                                 kNumberOf, kRate,      kFinite,  kBounded,   kSpace};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  auto p = weight_product<T>(call[kX], call[kDy], call[kDw], products_of(call, kProducts));
  AdamMatrix<T> matrix;
  matrix.columns = p.n;
  AdamArguments<T>& whole = matrix.whole;
  whole.param = call[kParam].as<T>(), whole.m = call[kM].as<T>(), whole.v = call[kV].as<T>(),
  whole.vmax = call[kVmax].as<T>();
  whole.step = call.value<int64_t>(kNumber), whole.lr = learning_rate(call, kLr, kAdamRate);
  set_adam_attributes(call, &whole);
  matrix.factors = adam_factors(whole.step, whole.lr, whole.beta1, whole.beta2);
  p.epilogue.consumer = {adam_tile_update<T>(), &matrix, {whole.param, whole.m, whole.v}, p.n};
  matmul(lane, p);
}

double flops(const OpCall& call) { return product_flops(call) + adam_flops(call[kParam].elements()); }

}  // namespace with_adam

}  // namespace

extern const OpSchema linear_update_ops[] = {
    {.name = "linear_dw_sgd",
     .operands = with_sgd::kOperands,
     .attributes = with_sgd::kAttributes,
     .check = with_sgd::check,
     .work = work<with_sgd::kDw, with_sgd::kProducts>,
     .flops = with_sgd::flops,
     .cpu = by_real<with_sgd::run<float>, with_sgd::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true,
     .fuses = {"linear_dw", "sgd"}},
    {.name = "linear_dw_adam",
     .operands = with_adam::kOperands,
     .attributes = with_adam::kAttributes,
     .check = check_product,
     .work = work<with_adam::kDw, with_adam::kProducts>,
     .flops = with_adam::flops,
     .cpu = by_real<with_adam::run<float>, with_adam::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true,
     .fuses = {"linear_dw", "adam"}},
};
extern const size_t linear_update_op_count = std::size(linear_update_ops);

}  // namespace gradring
