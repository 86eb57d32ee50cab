// The entry points that embedding_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/embedding/embedding.h"

namespace gradring {

using EmbeddingVjpKernel = Kernel<EmbeddingVjpArguments>;

GRADRING_DECLARE_KERNELS(EmbeddingVjpKernel, embedding_vjp_kernel)

}  // namespace gradring
