#include "ops/pointwise_loss/pointwise_loss.h"

#include "ops/pointwise_loss/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(pointwise_loss, PointwiseLossArguments, pointwise_loss_kernel)

template <class T>
ScratchBytes pointwise_loss_scratch(const PointwiseLossArguments<T>& arguments, int) noexcept {
  return loss_scratch<T>(arguments.rows, arguments.columns, arguments.column_sums != nullptr);
}
template <class T>
int pointwise_loss_lanes(const PointwiseLossArguments<T>& arguments, int lanes) noexcept {
  if (arguments.rows * arguments.columns <= kOneLaneElements) return 1;
  return lanes_worth(static_cast<double>(arguments.rows) * (5 + 0.5 * static_cast<double>(arguments.columns)), lanes);
}

template ScratchBytes pointwise_loss_scratch(const PointwiseLossArguments<float>&, int) noexcept;
template ScratchBytes pointwise_loss_scratch(const PointwiseLossArguments<double>&, int) noexcept;
template int pointwise_loss_lanes(const PointwiseLossArguments<float>&, int) noexcept;
template int pointwise_loss_lanes(const PointwiseLossArguments<double>&, int) noexcept;

}  // namespace gradring
