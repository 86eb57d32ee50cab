#include "ops/combine/combine.h"

#include "ops/combine/kernels.h"

namespace gradring {

Combine find_combine(Element element, Reduction reduction) noexcept {
  if (!can_reduce(element, reduction)) return nullptr;
  const auto of = [&](const CombineKernels& kernels) {
    return kernels.of[static_cast<int>(element)][static_cast<int>(reduction)];
  };
#if defined(__x86_64__) && !defined(GRADRING_ONE_ISA)
  if (active_isa() == Isa::kAvx512 && !of(isa_avx512::combine_kernels)) return of(isa_avx2::combine_kernels);
#endif
  return of(GRADRING_KERNELS(combine_kernels));
}

}  // namespace gradring
