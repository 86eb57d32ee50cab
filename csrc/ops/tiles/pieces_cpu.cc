#include "ops/tiles/kernels.h"
#include "ops/tiles/pieces.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

extern const MatmulKernels<float> pieces_kernels;
const MatmulKernels<float> pieces_kernels = {
    run_pieces, pieces_scratch, pieces_lanes, {kPanel, kPanel, kPanel, kPanel, kMaxPieceSteps}};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
