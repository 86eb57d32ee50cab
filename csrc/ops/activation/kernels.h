// The table that activation_cpu.cc fills once per ISA level.
#pragma once

#include "ops/activation/activation.h"
#include "ops/dispatch.h"

namespace gradring {

template <class T>
struct ActivationTable {
  void (*forward)(const Lane&, const ActivationArguments<T>&) noexcept;
  void (*vjp)(const Lane&, const ActivationVjpArguments<T>&) noexcept;
};

using ActivationKernels = ByType<ActivationTable>;

GRADRING_DECLARE_KERNELS(ActivationKernels, activation_kernels)

}  // namespace gradring
