// check_step: one thread reads the totals of the loss, and decides whether the step may change anything.
// Bytes: about 100 of the totals and the step record. FLOPs: 3.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/loss/loss.h"

namespace gradring {

namespace {

// See op.cc. columns: above 0, the loss is the sum over all elements.
__global__ void check_step_kernel(StepRecord* step, const LossTotals* totals, double rows, bool weighted,
                                  double columns) {
  if (stopped(step)) return;
  step->loss_sum = columns > 0 ? totals->loss * columns : totals->loss;
  step->loss_weight = columns > 0 ? 1 : weighted ? totals->weight : rows;
  step->total_weight = step->pending_weight + step->loss_weight;
  step->correct = totals->correct;
  if (totals->bad_row >= 0) {
    step->fault = Fault::kLabel;
    step->fault_row = totals->bad_row;
  } else if (weighted && weights_fail(*totals, step->need_weight)) {
    step->fault = Fault::kWeight;
    step->fault_row = totals->bad_weight;
  } else if (step->check_finite && !step->may_skip() && !(totals->loss - totals->loss == 0)) {
    step->fault = Fault::kNonFinite;
  }
}

int run(const OpCall& call, const CudaQueue& queue) noexcept {
  return LAUNCH(check_step_kernel, dim3(1), dim3(1), 0, stream_of(queue), call.step,
                operand(call, "totals").as<const LossTotals>(), static_cast<double>(integer(call, "rows")),
                flag(call, "weighted"), static_cast<double>(integer(call, "columns")));
}

CudaRun choose(const OpCall& call) noexcept {
  const bool known = has_only(call, {"totals", "pending", "loss_sum", "weight", "correct", "finite", "total_weight"});
  return known ? run : nullptr;
}

}  // namespace

extern const CudaKernel check_step_cuda_kernels[] = {{.op = "check_step", .choose = choose}};
extern const size_t check_step_cuda_kernel_count = std::size(check_step_cuda_kernels);

}  // namespace gradring
