#include "ops/cross_entropy/cross_entropy.h"

#include "ops/cross_entropy/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(cross_entropy, CrossEntropyArguments, cross_entropy_kernel)

template <class T>
ScratchBytes cross_entropy_scratch(const CrossEntropyArguments<T>& arguments, int) noexcept {
  return loss_scratch<T>(arguments.rows, arguments.classes, arguments.column_sums != nullptr);
}
template <class T>
int cross_entropy_lanes(const CrossEntropyArguments<T>& arguments, int lanes) noexcept {
  if (arguments.rows * arguments.classes <= kOneLaneElements) return 1;
  return lanes_worth(static_cast<double>(arguments.rows) * (5 + 0.5 * static_cast<double>(arguments.classes)), lanes);
}

template ScratchBytes cross_entropy_scratch(const CrossEntropyArguments<float>&, int) noexcept;
template ScratchBytes cross_entropy_scratch(const CrossEntropyArguments<double>&, int) noexcept;
template int cross_entropy_lanes(const CrossEntropyArguments<float>&, int) noexcept;
template int cross_entropy_lanes(const CrossEntropyArguments<double>&, int) noexcept;

}  // namespace gradring
