#include "ops/tiles/kernels.h"
#include "ops/tiles/pieces.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

static MatmulBlocks pieces_blocks() noexcept { return {kPanel, kPanel, kPanel, kPanel, kMaxPieceSteps}; }

extern const MatmulKernels<float> pieces_kernels;
const MatmulKernels<float> pieces_kernels = {run_pieces, pieces_scratch, pieces_lanes, pieces_blocks};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
