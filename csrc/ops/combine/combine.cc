#include "ops/combine/combine.h"

#include "ops/combine/kernels.h"

namespace gradring {

Combine find_combine(Element element, Reduction reduction) noexcept {
  if (!can_reduce(element, reduction)) return nullptr;
  return GRADRING_KERNELS(combine_kernels).of[static_cast<int>(element)][static_cast<int>(reduction)];
}

}  // namespace gradring
