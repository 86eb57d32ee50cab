// The registration of batch_norm, batch_norm_vjp, and of ops that only programs use: batch_norm_inference, which changes no
// operand, batch_norm_update, which moves the running moments after the step's check has passed, and merge_moments, which does
// so where several parts of a batch have moments of their own.
#include "ops/op.h"

#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/merge.h"

namespace gradring {

namespace {

// An operand that has one number per column of x.
void check_rows(const OpCall& call, int x, int training) {
  if (!call.flag(training) || call[x].rows() != 1) return;
  refuse(call, call.operand_name(x) + std::string(" is ") + shape_text(call[x]) +
                   ": training needs at least 2 rows, because one row has no variance; leave the last batch out with "
                   "drop_last=True");
}

namespace forward {

enum { kX, kWeight, kBias, kRunningMean, kRunningVar, kY, kMean, kVariance };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "weight", .same_dtype = kX, .optional = true},
    {.name = "bias", .same_dtype = kX, .optional = true},
    {.name = "running_mean", .access = Access::kUpdate, .same_dtype = kX, .optional = true},
    {.name = "running_var", .access = Access::kUpdate, .same_dtype = kX, .optional = true},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
    {.name = "mean", .access = Access::kWrite, .same_dtype = kX, .optional = true, .apart = true},
    {.name = "variance", .access = Access::kWrite, .same_dtype = kX, .optional = true, .apart = true},
};
enum { kTraining, kMomentum, kEps };
constexpr Attribute kAttributes[] = {
    {.name = "training", .type = AttributeType::kFlag, .required = true},
    {.name = "momentum", .type = AttributeType::kReal, .otherwise = real_value(0.1), .least = 0, .most = 1},
    {.name = "eps", .type = AttributeType::kReal, .otherwise = real_value(1e-5), .least = 0},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  batch_norm<T>(lane, {call[kX].rows(), call[kX].columns(), call[kX].as<const T>(), call[kWeight].as<const T>(),
                       call[kBias].as<const T>(), call[kRunningMean].as<T>(), call[kRunningVar].as<T>(),
                       call[kY].as<T>(), call[kMean].as<T>(), call[kVariance].as<T>(), call.flag(kTraining),
                       call.real(kMomentum), call.real(kEps)});
}

void check(const OpCall& call) {
  for (const int vector : {kWeight, kBias, kRunningMean, kRunningVar}) check_columns(call, kX, vector);
  check_rows(call, kX, kTraining);
  if (call.flag(kTraining) || (call[kRunningMean] && call[kRunningVar])) return;
  refuse(call, std::string(call.operand_name(call[kRunningMean] ? kRunningVar : kRunningMean)) +
                   " is missing: without training, columns are normalized by the running moments");
}

void shape(const OpCall& call, int, Shape* shape) { column_shape(call, kX, shape); }

void work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor& x = call[kX];
  work->lanes = batch_norm_lanes(x.rows(), x.columns(), lanes);
  work->scratch = batch_norm_scratch(x.rows(), x.columns(), size_of(x.dtype), call.flag(kTraining));
  work->operations = static_cast<double>(x.elements()) * 15;
}

double flops(const OpCall& call) { return (call.flag(kTraining) ? 7 : 3) * static_cast<double>(call[kX].elements()); }
// The kernel reads x twice: for the moments, and to normalize it.
double bytes(const OpCall& call) {
  return all_operand_bytes(call) + (call.flag(kTraining) ? operand_bytes(call, kX) : 0);
}

}  // namespace forward

namespace inference {

enum { kX, kWeight, kBias, kMean, kVariance, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "weight", .same_dtype = kX, .optional = true},
    {.name = "bias", .same_dtype = kX, .optional = true},
    {.name = "mean", .same_dtype = kX},
    {.name = "variance", .same_dtype = kX},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};
constexpr Attribute kAttributes[] = {
    {.name = "eps", .type = AttributeType::kReal, .otherwise = real_value(1e-5), .least = 0},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  BatchNormArguments<T> g;
  g.rows = call[kX].rows(), g.columns = call[kX].columns(), g.x = call[kX].as<const T>();
  g.weight = call[kWeight].as<const T>(), g.bias = call[kBias].as<const T>();
  g.running_mean = call[kMean].as<T>(), g.running_var = call[kVariance].as<T>();  // inference only reads these
  g.y = call[kY].as<T>(), g.eps = call.real(0);
  batch_norm(lane, g);
}

void check(const OpCall& call) {
  for (const int vector : {kWeight, kBias, kMean, kVariance}) check_columns(call, kX, vector);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor& x = call[kX];
  work->lanes = batch_norm_lanes(x.rows(), x.columns(), lanes);
  work->scratch = batch_norm_scratch(x.rows(), x.columns(), size_of(x.dtype), false);
  work->operations = static_cast<double>(x.elements()) * 10;
}

double flops(const OpCall& call) { return 3 * static_cast<double>(call[kX].elements()); }

}  // namespace inference

namespace vjp {

enum { kDy, kX, kWeight, kMean, kVariance, kDx, kDweight, kDbias };
constexpr Operand kOperands[] = {
    {.name = "dy", .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "x", .same_dtype = kDy, .like = kDy},
    {.name = "weight", .same_dtype = kDy, .optional = true},
    {.name = "mean", .same_dtype = kDy, .optional = true},
    {.name = "variance", .same_dtype = kDy, .optional = true},
    {.name = "dx", .access = Access::kWrite, .same_dtype = kDy, .like = kDy, .optional = true},
    {.name = "dweight", .access = Access::kWrite, .same_dtype = kDy, .optional = true, .apart = true},
    {.name = "dbias", .access = Access::kWrite, .same_dtype = kDy, .optional = true, .apart = true},
};
enum { kTraining, kEps };
constexpr Attribute kAttributes[] = {
    {.name = "training", .type = AttributeType::kFlag, .required = true},
    {.name = "eps", .type = AttributeType::kReal, .otherwise = real_value(1e-5), .least = 0},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  batch_norm_vjp<T>(
      lane, {call[kDy].rows(), call[kDy].columns(), call[kDy].as<const T>(), call[kX].as<const T>(),
             call[kWeight].as<const T>(), call[kMean].as<const T>(), call[kVariance].as<const T>(), call[kDx].as<T>(),
             call[kDweight].as<T>(), call[kDbias].as<T>(), call.flag(kTraining), call.real(kEps)});
}

void check(const OpCall& call) {
  for (const int vector : {kWeight, kMean, kVariance}) check_columns(call, kX, vector);
  check_rows(call, kX, kTraining);
  if (call[kMean] && call[kVariance]) return;
  if (call.flag(kTraining) && !call[kMean] && !call[kVariance]) return;
  refuse(call, std::string(call.operand_name(call[kMean] ? kVariance : kMean)) +
                   " is missing: give the mean and the variance that batch_norm used" +
                   (call.flag(kTraining) ? ", or neither" : ""));
}

void shape(const OpCall& call, int, Shape* shape) { column_shape(call, kX, shape); }

void work(const OpCall& call, int lanes, OpWork* work) {
  const Tensor& x = call[kDy];
  work->lanes = batch_norm_lanes(x.rows(), 2 * x.columns(), lanes);
  work->scratch = batch_norm_vjp_scratch(x.rows(), x.columns(), size_of(x.dtype));
  work->operations = static_cast<double>(x.elements()) * 25;
}

double flops(const OpCall& call) { return 10 * static_cast<double>(call[kX].elements()); }
// x and dy are read twice: for the sums, and for dx.
double bytes(const OpCall& call) {
  return all_operand_bytes(call) + operand_bytes(call, kX) + operand_bytes(call, kDy);
}

}  // namespace vjp

namespace update {

enum { kRunningMean, kRunningVar, kMean, kVariance };
constexpr Operand kOperands[] = {
    {.name = "running_mean", .access = Access::kUpdate, .dtypes = kRealDtypes, .least_rank = 1, .most_rank = 1},
    {.name = "running_var", .access = Access::kUpdate, .same_dtype = kRunningMean, .like = kRunningMean},
    {.name = "mean", .same_dtype = kRunningMean, .like = kRunningMean},
    {.name = "variance", .same_dtype = kRunningMean, .like = kRunningMean},
};
enum { kRows, kMomentum };
constexpr Attribute kAttributes[] = {
    {.name = "rows", .type = AttributeType::kInt, .required = true, .least = 0, .most = 1e15},
    {.name = "momentum", .type = AttributeType::kReal, .otherwise = real_value(0.1), .least = 0, .most = 1},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  batch_norm_update<T>(
      lane, {call.integer(kRows), call[kMean].columns(), call[kRunningMean].as<T>(), call[kRunningVar].as<T>(),
             call[kMean].as<const T>(), call[kVariance].as<const T>(), call.real(kMomentum)});
}

void work(const OpCall& call, int lanes, OpWork* work) {
  work->lanes = lanes_worth(static_cast<double>(call[kMean].elements()), lanes);
  work->operations = static_cast<double>(call[kMean].elements()) * 20;
}

double flops(const OpCall& call) { return 7 * static_cast<double>(call[kMean].elements()); }

}  // namespace update

namespace merge {

enum { kParts, kRunningMean, kRunningVar };
constexpr Operand kOperands[] = {
    {.name = "parts", .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "running_mean", .access = Access::kUpdate, .same_dtype = kParts, .least_rank = 1, .most_rank = 1},
    {.name = "running_var", .access = Access::kUpdate, .same_dtype = kParts, .like = kRunningMean},
};
enum { kMeanAt, kVarianceAt, kEach, kMomentum };
constexpr Attribute kAttributes[] = {
    {.name = "mean_at", .type = AttributeType::kInt, .required = true, .least = 1},
    {.name = "variance_at", .type = AttributeType::kInt, .required = true, .least = 1},
    {.name = "each", .type = AttributeType::kInt, .otherwise = integer_value(1), .least = 1},
    {.name = "momentum", .type = AttributeType::kReal, .otherwise = real_value(0.1), .least = 0, .most = 1},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  const Tensor& parts = call[kParts];
  const int64_t columns = call[kRunningMean].columns();
  const Range mine = split(lane, columns, 64 / static_cast<int64_t>(sizeof(T)));
  merge_moments<T>({parts.as<const T>(), parts.shape[0], parts.shape[1], call.integer(kMeanAt),
                    call.integer(kVarianceAt), columns, static_cast<double>(call.integer(kEach)), call.real(kMomentum),
                    call[kRunningMean].as<T>(), call[kRunningVar].as<T>()},
                   mine.begin, mine.end);
}

void check(const OpCall& call) {
  const int64_t columns = call[kRunningMean].columns(), all = call[kParts].shape[1];
  for (const int at : {kMeanAt, kVarianceAt}) {
    if (call.integer(at) <= all && columns <= all - call.integer(at)) continue;
    refuse(call, std::to_string(columns) + " columns from " + std::to_string(call.integer(at)) +
                     " on must lie inside parts, which is " + shape_text(call[kParts]));
  }
}

double numbers(const OpCall& call) {
  return static_cast<double>(call[kRunningMean].elements()) * static_cast<double>(call[kParts].shape[0]);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  work->lanes = lanes_worth(numbers(call) * 10, lanes);
  work->operations = numbers(call) * 100;
}

double flops(const OpCall& call) { return 12 * numbers(call); }

}  // namespace merge

}  // namespace

extern const OpSchema batch_norm_ops[] = {
    {.name = "batch_norm",
     .operands = forward::kOperands,
     .attributes = forward::kAttributes,
     .check = forward::check,
     .shape = forward::shape,
     .work = forward::work,
     .flops = forward::flops,
     .bytes = forward::bytes,
     .cpu = by_real<forward::run<float>, forward::run<double>>,
     .phases = phase::kForward},
    {.name = "batch_norm_vjp",
     .operands = vjp::kOperands,
     .attributes = vjp::kAttributes,
     .check = vjp::check,
     .shape = vjp::shape,
     .work = vjp::work,
     .flops = vjp::flops,
     .bytes = vjp::bytes,
     .cpu = by_real<vjp::run<float>, vjp::run<double>>,
     .phases = phase::kBackward},
    {.name = "batch_norm_inference",
     .operands = inference::kOperands,
     .attributes = inference::kAttributes,
     .check = inference::check,
     .work = inference::work,
     .flops = inference::flops,
     .cpu = by_real<inference::run<float>, inference::run<double>>,
     .phases = phase::kForward},
    {.name = "batch_norm_update",
     .operands = update::kOperands,
     .attributes = update::kAttributes,
     .work = update::work,
     .flops = update::flops,
     .cpu = by_real<update::run<float>, update::run<double>>,
     .phases = phase::kUpdate},
    {.name = "merge_moments",
     .operands = merge::kOperands,
     .attributes = merge::kAttributes,
     .check = merge::check,
     .work = merge::work,
     .flops = merge::flops,
     .cpu = by_real<merge::run<float>, merge::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true},
};
extern const size_t batch_norm_op_count = std::size(batch_norm_ops);

}  // namespace gradring
