#include "ops/tiles/tiles_amx.h"

#ifdef GRADRING_HAS_AMX

#include "ops/simd/simd_amx.h"

namespace gradring {

const TileFunctions amx_tiles = {
    "amx", amx::configure, amx::release, {amx::multiply<1>, amx::multiply<2>, amx::multiply<3>}};

}  // namespace gradring

#endif
