// The registration of the ops by which a worker of an asynchronous training reads the shared parameters and updates them.
#include "ops/op.h"

#include "ops/gradient_scale.h"
#include "ops/learning_rate.h"
#include "ops/shared_update/shared_update.h"

namespace gradring {

namespace {

// Each op names the view through which it reaches the shared parameters, and the place of the first element of `param` there.
enum { kShared, kBegin };
constexpr const char* kSharedKinds[] = {SharedView::kKind};
constexpr Attribute kSharedAttribute = {
    .name = "shared", .type = AttributeType::kResource, .required = true, .choices = kSharedKinds};
constexpr Attribute kBeginAttribute = {.name = "begin", .type = AttributeType::kInt, .required = true, .least = 0};
constexpr Attribute kPlaceAttributes[] = {kSharedAttribute, kBeginAttribute};

enum { kWay = 2, kDecay, kRate };
constexpr Attribute kPushAttributes[] = {
    kSharedAttribute,
    kBeginAttribute,
    {.name = "way", .type = AttributeType::kChoice, .choices = kPushes},
    {.name = "weight_decay", .type = AttributeType::kReal, .otherwise = real_value(0), .least = 0},
    kRateAttribute,
};

SharedView* view_of(const OpCall& call) noexcept { return &call.resource<SharedView>(kShared); }

// Refuses a parameter that reaches beyond the shared ones. A call outside a program has none to check.
template <int kWhich>
void check_reach(const OpCall& call) {
  if (call.resources == nullptr) return;
  const int64_t begin = call.integer(kBegin), elements = call[kWhich].elements();
  const int64_t all = view_of(call)->parameters().bytes() / static_cast<int64_t>(size_of(call[kWhich].dtype));
  if (begin <= all && elements <= all - begin) return;
  refuse(call, "param has " + std::to_string(elements) + " shared elements from element " + std::to_string(begin) +
                   " on: must lie inside " + std::to_string(all));
}

template <class T>
SharedPart<T> part_of(const OpCall& call, int param) noexcept {
  return {view_of(call), call.integer(kBegin), call[param].elements(), call[param].as<T>()};
}

template <class T>
SharedRows<T> rows_of(const OpCall& call, int ids, int param) noexcept {
  return {view_of(call),
          call.integer(kBegin),
          call[param].shape[0],
          call[param].shape[1],
          {call[ids].data, call[ids].dtype == Dtype::kInt64},
          call[ids].elements(),
          call[param].as<T>()};
}

void work_of(double elements, int lanes, OpWork* work) {
  work->lanes = lanes_worth(elements * 0.3, lanes);
  work->operations = elements * 20;
}

void part_work(const OpCall& call, int lanes, OpWork* work) {
  work_of(static_cast<double>(call[0].elements()), lanes, work);
}

constexpr Operand kPartOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
};

namespace read {

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  read_shared(lane, part_of<T>(call, 0));
}

}  // namespace read

namespace read_rows {

enum { kIds, kParam };
constexpr Operand kOperands[] = {
    {.name = "ids", .dtypes = kClassNumberDtypes},
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  read_shared_rows(lane, rows_of<T>(call, kIds, kParam));
}

void work(const OpCall& call, int lanes, OpWork* work) {
  work_of(static_cast<double>(call[kIds].elements()) * static_cast<double>(call[kParam].columns()), lanes, work);
}

double bytes(const OpCall& call) {
  return operand_bytes(call, kIds) + 2 * static_cast<double>(call[kIds].elements()) *
                                         static_cast<double>(call[kParam].columns()) *
                                         static_cast<double>(size_of(call[kParam].dtype));
}

}  // namespace read_rows

namespace take {

void check(const OpCall& call) {
  check_reach<0>(call);
  const int64_t begin = call.integer(kBegin), elements = call[0].elements();
  if (elements <= kStripe - begin % kStripe) return;
  refuse(call, "param has " + std::to_string(elements) + " shared elements from element " + std::to_string(begin) +
                   " on: must lie between two multiples of " + std::to_string(kStripe) + ", which one lock guards");
}

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  take_shared(lane, part_of<T>(call, 0));
}

template <class T>
void run_back(const Lane& lane, const OpCall& call) noexcept {
  give_shared(lane, part_of<T>(call, 0));
}

}  // namespace take

namespace push {

template <class T>
PushSgd<T> push_of(const OpCall& call, int gradient, int clip, int weight, int lr) noexcept {
  return {call[gradient].as<const T>(), learning_rate(call, lr, kRate), call.real(kDecay),
          gradient_scale(call, clip, weight), static_cast<Push>(call.integer(kWay))};
}

enum { kParam, kGradient, kClip, kWeight, kLr, kFinite };
constexpr Operand kOperands[] = {
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes},
    {.name = "gradient", .same_dtype = kParam, .like = kParam},
    {.name = "clip", .optional = true, .step = StepField::kClip},
    {.name = "weight", .optional = true, .step = StepField::kTotalWeight},
    {.name = "lr", .step = StepField::kLearningRate},
    {.name = "finite", .step = StepField::kFinite},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  push_sgd(lane, part_of<T>(call, kParam), push_of<T>(call, kGradient, kClip, kWeight, kLr));
}

double flops(const OpCall& call) { return static_cast<double>(call[kParam].elements()) * 2; }

}  // namespace push

namespace push_rows {

enum { kIds, kParam, kGradient, kClip, kWeight, kLr, kFinite };
constexpr Operand kOperands[] = {
    {.name = "ids", .dtypes = kClassNumberDtypes},
    {.name = "param", .access = Access::kUpdate, .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "gradient", .same_dtype = kParam, .like = kParam},
    {.name = "clip", .optional = true, .step = StepField::kClip},
    {.name = "weight", .optional = true, .step = StepField::kTotalWeight},
    {.name = "lr", .step = StepField::kLearningRate},
    {.name = "finite", .step = StepField::kFinite},
};

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  push_sgd_rows(lane, rows_of<T>(call, kIds, kParam), push::push_of<T>(call, kGradient, kClip, kWeight, kLr));
}

// A row that no id names would decay too.
void check(const OpCall& call) {
  check_reach<kParam>(call);
  if (call.real(kDecay) != 0) refuse(call, "weight_decay changes all rows: push them all");
}

void work(const OpCall& call, int lanes, OpWork* work) {
  read_rows::work(call, lanes, work);
  work->scratch.shared = static_cast<size_t>(call[kIds].elements()) * sizeof(int64_t);
}

double flops(const OpCall& call) {
  return static_cast<double>(call[kIds].elements()) * static_cast<double>(call[kParam].columns()) * 2;
}

}  // namespace push_rows

}  // namespace

extern const OpSchema shared_update_ops[] = {
    {.name = "read_shared",
     .operands = kPartOperands,
     .attributes = kPlaceAttributes,
     .check = check_reach<0>,
     .work = part_work,
     .cpu = by_real<read::run<float>, read::run<double>>,
     .phases = phase::kForward,
     .program_only = true,
     .effects = true},
    {.name = "read_shared_rows",
     .operands = read_rows::kOperands,
     .attributes = kPlaceAttributes,
     .check = check_reach<read_rows::kParam>,
     .work = read_rows::work,
     .bytes = read_rows::bytes,
     .cpu = by_real<read_rows::run<float>, read_rows::run<double>, read_rows::kParam>,
     .phases = phase::kForward,
     .program_only = true,
     .effects = true},
    {.name = "take_shared",
     .operands = kPartOperands,
     .attributes = kPlaceAttributes,
     .check = take::check,
     .work = part_work,
     .cpu = by_real<take::run<float>, take::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true},
    {.name = "give_shared",
     .operands = kPartOperands,
     .attributes = kPlaceAttributes,
     .check = take::check,
     .work = part_work,
     .cpu = by_real<take::run_back<float>, take::run_back<double>>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true},
    {.name = "push_sgd",
     .operands = push::kOperands,
     .attributes = kPushAttributes,
     .check = check_reach<push::kParam>,
     .work = part_work,
     .flops = push::flops,
     .cpu = by_real<push::run<float>, push::run<double>>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true},
    {.name = "push_sgd_rows",
     .operands = push_rows::kOperands,
     .attributes = kPushAttributes,
     .check = push_rows::check,
     .work = push_rows::work,
     .flops = push_rows::flops,
     .bytes = read_rows::bytes,
     .cpu = by_real<push_rows::run<float>, push_rows::run<double>, push_rows::kParam>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true},
};
extern const size_t shared_update_op_count = std::size(shared_update_ops);

}  // namespace gradring
