// column_sums: see column_sums.h. Bytes per element: one read of sizeof(T). FLOPs per element: 1.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/cuda_columns.h"

namespace gradring {

namespace {

using device::Wide;

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    groups_kernel(const StepRecord* step, ColumnPlan plan, const T* x, Wide<T>* groups) {
  if (stopped(step)) return;
  SHARED_ARRAY(Wide<T>, shared, device::kElementThreads);
  for_column_groups(plan, [&](const ColumnPlace& place, int64_t group, int64_t begin, int64_t end) {
    Wide<T> sums[1];
    const auto term = [&](int64_t row, Wide<T>* v) { v[0] = device::widen(x[row * plan.columns + place.column]); };
    sum_group<1>(place, begin, end, shared, term, sums);
    if (place.inside && place.lane == 0) groups[group * plan.columns + place.column] = sums[0];
  });
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    add_groups_kernel(const StepRecord* step, ColumnPlan plan, const Wide<T>* groups, T* sums) {
  if (stopped(step)) return;
  add_rows(groups, plan.groups, plan.columns, plan.columns, sums);
}

template <class T>
int run(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& x = operand(call, "x");
  const ColumnPlan plan(x.rows(), x.columns());
  if (plan.columns == 0) return 0;
  const StepRecord* step = call.step;
  auto* const groups = static_cast<Wide<T>*>(queue.scratch);
  const dim3 threads(device::kElementThreads);
  const int code = LAUNCH(groups_kernel<T>, dim3(column_blocks(plan, queue.processors)), threads, 0, stream_of(queue),
                          step, plan, x.as<const T>(), groups);
  if (code != 0) return code;
  return LAUNCH(add_groups_kernel<T>, dim3(blocks_for(plan.columns, queue.processors)), threads, 0, stream_of(queue),
                step, plan, groups, operand(call, "y").as<T>());
}

size_t scratch(const OpCall& call, const CudaQueue&) noexcept {
  const Tensor& x = operand(call, "x");
  const ColumnPlan plan(x.rows(), x.columns());
  return static_cast<size_t>(plan.groups * plan.columns) * size_of(x.dtype);
}

}  // namespace

extern const CudaKernel column_sums_cuda_kernels[] = {
    {.op = "column_sums", .choose = by_real_cuda<run<float>, run<double>>, .scratch = scratch},
};
extern const size_t column_sums_cuda_kernel_count = std::size(column_sums_cuda_kernels);

}  // namespace gradring
