// The registration of the ops by which data-parallel ranks meet, sum their planes of gradients, and end an update together.
#include "ops/op.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/reduce_update/meeting_resource.h"
#include "ops/reduce_update/reduce_update.h"
#include "runtime/failpoint.h"

namespace gradring {

namespace {

constexpr const char* kMeetingKinds[] = {MeetingResource::kKind};
constexpr Attribute kMeetingAttribute = {
    .name = "meeting", .type = AttributeType::kResource, .required = true, .choices = kMeetingKinds};

Meeting& meeting_of(const OpCall& call) noexcept { return call.resource<MeetingResource>(0).meeting(); }

constexpr Attribute kTreeAttribute = {.name = "tree", .type = AttributeType::kFlag};  // see SumPlanes

void little_work(const OpCall&, int, OpWork* work) { work->operations = 100; }

// A rank with a fault of its own keeps all details; the other ranks learn only its kind.
void take_fault(StepRecord* step, Fault fault) noexcept {
  if (step->fault == Fault::kNone) step->fault = fault;
}

// The ranks that remain after another one has left cannot continue, but have no fault of their own to report.
void stop_without_peers(StepRecord* step) noexcept { take_fault(step, Fault::kCallback); }

// Whether the last meeting ended without a step: a rank had left, or it had stopped waiting before this one settled.
bool came_to_nothing(const Meeting& meeting) noexcept {
  return !meeting.took_place() || meeting.decision() == Decision::kAbort;
}

// A rank that computes several parts of a batch, one after another, keeps the sums of each part's losses.
namespace parts {

enum { kKeptLoss, kKeptWeight, kKeptCorrect, kKeptNumbers };

// The rows from `first_row` on are those that the next instructions work on.
constexpr Attribute kBeginAttributes[] = {
    {.name = "first_row", .type = AttributeType::kInt, .required = true, .least = 0},
    {.name = "rows_before", .type = AttributeType::kInt, .least = 0},  // the first row of the part before, or 0
};

void begin(const Lane&, const OpCall& call) noexcept {
  StepRecord& step = *call.step;
  const int64_t further = call.integer(0) - call.integer(1);
  if (step.samples != nullptr) step.samples += further;
  step.first_sample += further;
}

enum { kLossSum, kWeight, kCorrect, kKept };
constexpr Operand kKeepOperands[] = {
    {.name = "loss_sum", .step = StepField::kLossSum},
    {.name = "weight", .step = StepField::kLossWeight},
    {.name = "correct", .step = StepField::kCorrect},
    {.name = "kept",
     .access = Access::kWrite,
     .dtypes = only(Dtype::kFloat64),
     .least_rank = 1,
     .most_rank = 1,
     .apart = true},
};

void keep(const Lane& lane, const OpCall& call) noexcept {
  if (lane.index != 0) return;
  const StepRecord& step = *call.step;
  auto* const kept = call[kKept].as<double>();
  kept[kKeptLoss] = step.loss_sum;
  kept[kKeptWeight] = step.loss_weight;
  kept[kKeptCorrect] = static_cast<double>(step.correct);
}

void keep_work(const OpCall&, int, OpWork* work) { work->operations = 10, work->alone = true; }

void keep_shape(const OpCall&, int, Shape* shape) { shape->rank = 1, shape->extent[0] = kKeptNumbers; }

}  // namespace parts

namespace meet {

enum { kLargest, kLossSum, kWeight, kCorrect, kTotalWeight, kFinite, kKept };
constexpr Operand kOperands[] = {
    {.name = "largest", .dtypes = kRealDtypes, .optional = true, .least_rank = 1, .most_rank = 1},
    {.name = "loss_sum", .access = Access::kUpdate, .step = StepField::kLossSum},
    {.name = "weight", .access = Access::kUpdate, .step = StepField::kLossWeight},
    {.name = "correct", .access = Access::kUpdate, .step = StepField::kCorrect},
    {.name = "total_weight", .access = Access::kUpdate, .step = StepField::kTotalWeight},
    {.name = "finite", .access = Access::kUpdate, .step = StepField::kFinite},
    {.name = "kept", .dtypes = only(Dtype::kFloat64), .optional = true, .least_rank = 1, .most_rank = 1},
};
enum { kMeeting, kLosses, kDecides, kSummed, kPlanes, kLeastRows };
constexpr Attribute kAttributes[] = {
    kMeetingAttribute,
    {.name = "losses", .type = AttributeType::kFlag},   // the ranks add up what check_step has found
    {.name = "decides", .type = AttributeType::kFlag},  // the update follows, unless the sums must be checked first
    {.name = "summed", .type = AttributeType::kFlag},   // the loss is a sum over all elements, not a mean
    // How many planes of this rank `largest` covers.
    {.name = "planes", .type = AttributeType::kInt, .otherwise = integer_value(1), .least = 1},
    // A batch of fewer rows, of all ranks together, is a fault: one row has no variance, for instance.
    {.name = "least_rows", .type = AttributeType::kInt, .least = 0},
};

// The number of the batch's rows if they are too few, else 0. Ranks that know it before a step do not plan such a step.
int64_t too_few_rows(const OpCall& call, const Meeting& meeting) noexcept {
  const int64_t rows = meeting.rows();
  return rows > 0 && rows < call.integer(kLeastRows) ? rows : 0;
}

// Says that a batch has too few `rows`: by the fault of weights that add up to too little, whose value is 0 otherwise.
void take_few_rows(StepRecord* step, int64_t rows) noexcept {
  take_fault(step, Fault::kWeight);
  step->fault_value = rows;
}

template <class T>
double largest_of(const Tensor& blocks) noexcept {
  double most = 0;
  for (int64_t b = 0, count = blocks.elements(); b < count; ++b) {
    const auto value = static_cast<double>(blocks.as<const T>()[b]);
    if (!(value <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::infinity();
    most = std::max(most, value);
  }
  return most;
}

Brought what_to_bring(const OpCall& call) noexcept {
  const StepRecord& step = *call.step;
  Brought mine;
  mine.fault = static_cast<uint32_t>(step.fault);
  if (step.fault != Fault::kNone) return mine;
  mine.loss_sum = step.loss_sum, mine.loss_weight = step.loss_weight, mine.correct = step.correct;
  if (call[kKept]) {  // the sums over several parts
    const auto* const kept = call[kKept].as<const double>();
    mine.loss_sum = kept[parts::kKeptLoss], mine.loss_weight = kept[parts::kKeptWeight];
    mine.correct = static_cast<int64_t>(kept[parts::kKeptCorrect]);
  }
  if (call[kLargest] && (step.moment & static_cast<uint8_t>(When::kLast)) != 0) {
    mine.largest = call[kLargest].dtype == Dtype::kFloat32 ? largest_of<float>(call[kLargest])
                                                           : largest_of<double>(call[kLargest]);
    if (std::isinf(mine.largest)) mine.fault = static_cast<uint32_t>(Fault::kGradient);
    mine.largest *= static_cast<double>(call.integer(kPlanes));
  }
  return mine;
}

void run(const Lane& lane, const OpCall& call) noexcept {
  Meeting& meeting = meeting_of(call);
  StepRecord& step = *call.step;
  const bool last = (step.moment & static_cast<uint8_t>(When::kLast)) != 0;
  const Dtype dtype = call[kLargest] ? call[kLargest].dtype : Dtype::kFloat64;
  lane.barrier();  // what this rank's lanes have written is complete
  if (lane.index == 0 && meeting.meet(what_to_bring(call))) {
    const MeetingTotals totals = totals_of(meeting);
    const bool good = totals.fault == Fault::kNone && too_few_rows(call, meeting) == 0;
    const bool later = good && may_overflow(totals.bound, dtype);  // prove_sums will decide
    if (call.flag(kDecides) && last && !later) meeting.settle(good);
  }
  lane.barrier();
  if (!meeting.took_place()) return stop_without_peers(&step);
  const MeetingTotals totals = totals_of(meeting);
  if (totals.fault != Fault::kNone) return take_fault(&step, totals.fault);
  if (const int64_t rows = too_few_rows(call, meeting)) return take_few_rows(&step, rows);
  if (came_to_nothing(meeting)) return stop_without_peers(&step);
  if (may_overflow(totals.bound, dtype)) step.leave_bounded_route();
  if (!call.flag(kLosses)) return;
  step.loss_sum = totals.loss_sum;
  step.loss_weight = call.flag(kSummed) ? 1 : totals.loss_weight;
  step.total_weight = step.pending_weight + step.loss_weight;
  step.correct = totals.correct;
}

void check(const OpCall& call) {
  if (!call[kKept] || call[kKept].elements() == parts::kKeptNumbers) return;
  refuse(call, "kept is " + shape_text(call[kKept]) + ": must be (" + std::to_string(parts::kKeptNumbers) + ",)");
}

}  // namespace meet

namespace sum {

enum { kPlanes, kSum };
constexpr Operand kOperands[] = {
    {.name = "planes", .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "sum", .access = Access::kWrite, .same_dtype = kPlanes, .least_rank = 1, .most_rank = 1, .apart = true},
};
constexpr Attribute kAttributes[] = {
    {.name = "begin", .type = AttributeType::kInt, .required = true, .least = 0},
    kTreeAttribute,
};

void run(const Lane& lane, const OpCall& call) noexcept {
  const Tensor& planes = call[kPlanes];
  if (lane.index == 0) failpoint_of_update("within update");
  sum_planes(lane, {planes.dtype, planes.as<const std::byte>(), planes.shape[0], planes.shape[1], call.integer(0),
                    call[kSum].shape[0], call[kSum].as<std::byte>(), call.flag(1)});
}

void check(const OpCall& call) {
  if (!call[kSum] || call.integer(0) + call[kSum].shape[0] <= call[kPlanes].shape[1]) return;
  refuse(call, "sum has " + std::to_string(call[kSum].shape[0]) + " elements from column " +
                   std::to_string(call.integer(0)) + " on, planes is " + shape_text(call[kPlanes]) +
                   ": must lie inside");
}

void work_of(double n, int lanes, OpWork* work) {
  work->lanes = lanes_worth(n * 0.1, lanes);
  work->operations = n * 8;
  work->alone = n <= 4096;
}

void work(const OpCall& call, int lanes, OpWork* work) {
  work_of(static_cast<double>(call[kSum] ? call[kSum].shape[0] : 0) * static_cast<double>(call[kPlanes].shape[0]),
          lanes, work);
}

double flops(const OpCall& call) {
  return static_cast<double>(call[kSum].shape[0]) * static_cast<double>(call[kPlanes].shape[0] - 1);
}

double bytes(const OpCall& call) {
  return static_cast<double>(call[kSum].shape[0]) * static_cast<double>(call[kPlanes].shape[0] + 1) *
         static_cast<double>(size_of(call[kPlanes].dtype));
}

}  // namespace sum

// The update works on a rank's own columns of its own plane, which no other rank reads or writes.
namespace in_place {

constexpr Operand kOperands[] = {
    {.name = "planes", .access = Access::kUpdate, .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
};
enum { kRow, kBegin, kCount, kTree };
constexpr Attribute kAttributes[] = {
    {.name = "row", .type = AttributeType::kInt, .required = true, .least = 0},
    {.name = "begin", .type = AttributeType::kInt, .required = true, .least = 0},
    {.name = "count", .type = AttributeType::kInt, .required = true, .least = 0},
    kTreeAttribute,
};

void run(const Lane& lane, const OpCall& call) noexcept {
  const Tensor& planes = call[0];
  auto* const data = planes.as<std::byte>();
  const int64_t at = call.integer(kRow) * planes.shape[1] + call.integer(kBegin);
  sum_planes(lane, {planes.dtype, data, planes.shape[0], planes.shape[1], call.integer(kBegin), call.integer(kCount),
                    data + at * static_cast<int64_t>(size_of(planes.dtype)), call.flag(kTree)});
}

void check(const OpCall& call) {
  if (call.integer(kRow) < call[0].shape[0] && call.integer(kBegin) <= call[0].shape[1] &&
      call.integer(kCount) <= call[0].shape[1] - call.integer(kBegin)) {
    return;
  }
  refuse(call, "row " + std::to_string(call.integer(kRow)) + " and " + std::to_string(call.integer(kCount)) +
                   " columns from " + std::to_string(call.integer(kBegin)) + " on must lie inside planes, which is " +
                   shape_text(call[0]));
}

void work(const OpCall& call, int lanes, OpWork* work) {
  sum::work_of(static_cast<double>(call.integer(kCount)) * static_cast<double>(call[0].shape[0]), lanes, work);
}

double flops(const OpCall& call) {
  return static_cast<double>(call.integer(kCount)) * static_cast<double>(call[0].shape[0] - 1);
}

double bytes(const OpCall& call) {
  return static_cast<double>(call.integer(kCount)) * static_cast<double>(call[0].shape[0] + 1) *
         static_cast<double>(size_of(call[0].dtype));
}

}  // namespace in_place

// If the largest elements of the planes add up to more than a float holds, each rank checks the sums that it owns, and
// another meeting decides. That is so rare that lane 0 alone does the check.
namespace prove {

enum { kPlanes, kFinite };
constexpr Operand kOperands[] = {
    {.name = "planes", .dtypes = kRealDtypes, .least_rank = 2, .most_rank = 2},
    {.name = "finite", .access = Access::kUpdate, .step = StepField::kFinite},
};
enum { kMeeting, kBegin, kCount, kTree };
constexpr Attribute kAttributes[] = {
    kMeetingAttribute,
    {.name = "begin", .type = AttributeType::kInt, .required = true, .least = 0},
    {.name = "count", .type = AttributeType::kInt, .required = true, .least = 0},
    kTreeAttribute,
};

template <class T>
bool finite(const OpCall& call) noexcept {
  constexpr int64_t kPart = 1024;
  const Tensor& planes = call[kPlanes];
  T sum[kPart];
  for (int64_t at = 0, count = call.integer(kCount); at < count; at += kPart) {
    const int64_t n = std::min(kPart, count - at);
    sum_planes(Lane{}, {planes.dtype, planes.as<const std::byte>(), planes.shape[0], planes.shape[1],
                        call.integer(kBegin) + at, n, reinterpret_cast<std::byte*>(sum), call.flag(kTree)});
    for (int64_t i = 0; i < n; ++i)
      if (!std::isfinite(sum[i])) return false;
  }
  return true;
}

void run(const Lane& lane, const OpCall& call) noexcept {
  StepRecord& step = *call.step;
  if ((step.moment & static_cast<uint8_t>(When::kUnbounded)) == 0) return;
  Meeting& meeting = meeting_of(call);
  lane.barrier();
  if (lane.index == 0) {
    const bool good = call[kPlanes].dtype == Dtype::kFloat32 ? finite<float>(call) : finite<double>(call);
    Brought mine;
    mine.fault = static_cast<uint32_t>(good ? Fault::kNone : Fault::kGradient);
    if (meeting.meet(mine)) meeting.settle(totals_of(meeting).fault == Fault::kNone);
  }
  lane.barrier();
  if (!meeting.took_place()) return stop_without_peers(&step);
  if (const Fault fault = totals_of(meeting).fault; fault != Fault::kNone) return take_fault(&step, fault);
  if (came_to_nothing(meeting)) stop_without_peers(&step);
}

void check(const OpCall& call) {
  if (call.integer(kBegin) <= call[kPlanes].shape[1] &&
      call.integer(kCount) <= call[kPlanes].shape[1] - call.integer(kBegin))
    return;
  refuse(call, std::to_string(call.integer(kCount)) + " columns from " + std::to_string(call.integer(kBegin)) +
                   " on must lie inside planes, which is " + shape_text(call[kPlanes]));
}

}  // namespace prove

// With clipping, the ranks add up the squares of the sums that they own, in the order of tree_sum.
namespace squares {

enum { kSum, kFinite };
constexpr Operand kOperands[] = {
    {.name = "sum", .access = Access::kUpdate, .dtypes = only(Dtype::kFloat64), .least_rank = 1, .most_rank = 1},
    {.name = "finite", .access = Access::kUpdate, .step = StepField::kFinite},
};
enum { kMeeting, kOwns };
constexpr Attribute kAttributes[] = {
    kMeetingAttribute, {.name = "owns", .type = AttributeType::kFlag},  // the rank owns a part; if not, it adds nothing
};

// Whether the op `clip`, which comes next, can divide by the weight of the batch and go on.
bool finite(const StepRecord& step, double squares) noexcept {
  const double scale = step.total_weight == 0 ? 0.0 : 1.0 / step.total_weight;
  return (!step.check_finite && !step.may_skip()) || std::isfinite(squares * scale * scale);
}

void run(const Lane& lane, const OpCall& call) noexcept {
  Meeting& meeting = meeting_of(call);
  StepRecord& step = *call.step;
  auto* const sum = call[kSum].as<double>();
  lane.barrier();
  if (lane.index == 0) {
    Brought mine;
    mine.squares = call.flag(kOwns) ? *sum : 0;
    if (meeting.meet(mine)) {
      const double total =
          tree_sum(0, meeting.size(), [&](int64_t r) { return meeting.of(static_cast<int>(r)).squares; });
      *sum = total;
      meeting.settle(finite(step, total));
    }
  }
  lane.barrier();
  if (!meeting.took_place()) return stop_without_peers(&step);
  if (!finite(step, *sum)) return step.take_infinity();
  if (came_to_nothing(meeting)) stop_without_peers(&step);
}

void check(const OpCall& call) {
  if (call[kSum].shape[0] != 1) refuse(call, "sum is " + shape_text(call[kSum]) + ": must be (1,)");
}

}  // namespace squares

// The end of an update. After it, every rank may read the parameters, and write its plane again.
namespace end {

constexpr Operand kOperands[] = {{.name = "finite", .access = Access::kUpdate, .step = StepField::kFinite}};
constexpr Attribute kAttributes[] = {kMeetingAttribute};

void run(const Lane& lane, const OpCall& call) noexcept {
  auto* const done = reinterpret_cast<int64_t*>(lane.shared_scratch());
  lane.barrier();
  if (lane.index == 0) *done = meeting_of(call).finish();
  lane.barrier();
  if (*done == 0) stop_without_peers(call.step);
}

void work(const OpCall& call, int lanes, OpWork* work) {
  little_work(call, lanes, work);
  work->scratch.shared = sizeof(int64_t);
}

}  // namespace end

// A rank without rows in a batch takes part with a plane of zeros.
namespace clear {

constexpr Operand kOperands[] = {{.name = "plane", .access = Access::kWrite, .dtypes = kRealDtypes}};

void run(const Lane& lane, const OpCall& call) noexcept {
  const auto item = static_cast<int64_t>(size_of(call[0].dtype));
  const Range part = split(lane, call[0].elements(), kFlatGrain);
  std::fill(call[0].as<std::byte>() + part.begin * item, call[0].as<std::byte>() + part.end * item, std::byte{0});
}

void work(const OpCall& call, int lanes, OpWork* work) {
  sum::work_of(static_cast<double>(call[0] ? call[0].elements() : 0), lanes, work);
}

}  // namespace clear

}  // namespace

extern const OpSchema reduce_update_ops[] = {
    {.name = "begin_part",
     .operands = {},
     .attributes = parts::kBeginAttributes,
     .work = little_work,
     .cpu = always<parts::begin>,
     .phases = phase::kForward,
     .program_only = true,
     .effects = true,
     .every_lane = true},
    {.name = "keep_losses",
     .operands = parts::kKeepOperands,
     .attributes = {},
     .shape = parts::keep_shape,
     .work = parts::keep_work,
     .cpu = always<parts::keep>,
     .phases = phase::kCheck | phase::kBackward,
     .program_only = true},
    {.name = "meet",
     .operands = meet::kOperands,
     .attributes = meet::kAttributes,
     .check = meet::check,
     .work = little_work,
     .cpu = always<meet::run>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true,
     .every_lane = true},
    {.name = "sum_planes",
     .operands = sum::kOperands,
     .attributes = sum::kAttributes,
     .check = sum::check,
     .work = sum::work,
     .flops = sum::flops,
     .bytes = sum::bytes,
     .cpu = always<sum::run>,
     .phases = phase::kUpdate,
     .program_only = true},
    {.name = "sum_planes_in_place",
     .operands = in_place::kOperands,
     .attributes = in_place::kAttributes,
     .check = in_place::check,
     .work = in_place::work,
     .flops = in_place::flops,
     .bytes = in_place::bytes,
     .cpu = always<in_place::run>,
     .phases = phase::kUpdate,
     .program_only = true},
    {.name = "prove_sums",
     .operands = prove::kOperands,
     .attributes = prove::kAttributes,
     .check = prove::check,
     .work = little_work,
     .cpu = always<prove::run>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true,
     .every_lane = true},
    {.name = "meet_squares",
     .operands = squares::kOperands,
     .attributes = squares::kAttributes,
     .check = squares::check,
     .work = little_work,
     .cpu = always<squares::run>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true,
     .every_lane = true},
    {.name = "end_update",
     .operands = end::kOperands,
     .attributes = end::kAttributes,
     .work = end::work,
     .cpu = always<end::run>,
     .phases = phase::kUpdate,
     .program_only = true,
     .effects = true,
     .every_lane = true},
    {.name = "clear_plane",
     .operands = clear::kOperands,
     .attributes = {},
     .work = clear::work,
     .cpu = always<clear::run>,
     .phases = phase::kBackward | phase::kUpdate,
     .program_only = true},
};
extern const size_t reduce_update_op_count = std::size(reduce_update_ops);

}  // namespace gradring
