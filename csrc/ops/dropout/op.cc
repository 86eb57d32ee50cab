// The registration of dropout, which is also its own vjp (of dy, with the same seed). In a program, `draw` is the number
// of the forward pass, and the step record has the seed and the samples' numbers.
#include "ops/op.h"

#include "ops/dropout/dropout.h"

namespace gradring {

namespace {

enum { kX, kSamples, kDraw, kY };
constexpr Operand kOperands[] = {
    {.name = "x", .dtypes = kRealDtypes, .least_rank = 1},
    {.name = "samples", .dtypes = only(Dtype::kInt64), .optional = true},
    {.name = "draw", .optional = true, .step = StepField::kDraw},
    {.name = "y", .access = Access::kWrite, .same_dtype = kX, .like = kX},
};
enum { kP, kSeed, kLayer, kEpoch };
constexpr Attribute kAttributes[] = {
    {.name = "p", .type = AttributeType::kReal, .otherwise = real_value(0.5), .least = 0, .most = 1},
    {.name = "seed", .type = AttributeType::kSeed},
    {.name = "layer", .type = AttributeType::kInt, .least = 0, .most = 4294967295.0},
    {.name = "epoch", .type = AttributeType::kInt, .least = 0, .most = 4294967295.0},
};

int64_t columns_of(const Tensor& x) noexcept { return x.shape[0] ? x.elements() / x.shape[0] : 0; }

template <class T>
void run(const Lane& lane, const OpCall& call) noexcept {
  DropoutArguments<T> g;
  g.rows = call[kX].shape[0], g.columns = columns_of(call[kX]);
  g.x = call[kX].as<const T>(), g.y = call[kY].as<T>(), g.samples = call[kSamples].as<const int64_t>();
  g.seed = static_cast<uint64_t>(call.integer(kSeed)), g.p = call.real(kP);
  g.layer = static_cast<uint32_t>(call.integer(kLayer)), g.epoch = static_cast<uint32_t>(call.integer(kEpoch));
  if (call[kDraw]) {
    g.samples = call.step->samples, g.first_sample = call.step->first_sample;
    g.seed = call.step->seed, g.epoch = static_cast<uint32_t>(call.step->draw);
  }
  dropout(lane, g);
}

void check(const OpCall& call) {
  const Tensor& samples = call[kSamples];
  const int64_t rows = call[kX].shape[0];
  if (!samples || (samples.rank == 1 && samples.shape[0] == rows)) return;
  refuse(call, "samples is " + shape_text(samples) + " of int64: must be int64, one number for each of " +
                   std::to_string(rows) + " rows");
}

void work(const OpCall& call, int lanes, OpWork* work) {
  const int64_t columns = columns_of(call[kX]);
  work->lanes = dropout_lanes(call[kX].shape[0], columns, lanes);
  work->operations = static_cast<double>(call[kX].shape[0] * columns) * 20;
}

double flops(const OpCall& call) { return static_cast<double>(call[kX].elements()); }

}  // namespace

extern const OpSchema dropout_ops[] = {
    {.name = "dropout",
     .operands = kOperands,
     .attributes = kAttributes,
     .check = check,
     .work = work,
     .flops = flops,
     .cpu = by_real<run<float>, run<double>>},
};
extern const size_t dropout_op_count = std::size(dropout_ops);

}  // namespace gradring
