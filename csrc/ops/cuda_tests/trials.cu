// Runs the trials of a theme.
#include "cuda/device.h"
#include "ops/cuda_tests/trials.h"
#include "ops/register_cuda.h"

namespace gradring::testing {

Dtype dtype_of(const Entry& entry, int turn) {
  if (turn % 4 == 3) return Dtype::kFloat64;
  const DtypeSet allowed = find_schema(entry.op)->operands[0].dtypes;
  if (turn % 4 != 1 || allowed != kProductDtypes) return Dtype::kFloat32;
  return turn % 8 == 1 ? Dtype::kBfloat16 : Dtype::kFloat16;
}

void check_entries(Entries entries) {
  register_all_cuda_kernels();
  std::random_device device;
  for (const Entry& entry : entries) {
    SUBCASE(entry.op) {
      const uint64_t seed = device();
      INFO("seed ", seed);
      Random random(seed);
      for (int turn = 0; turn < shapes(); ++turn) {
        Trial trial(entry.op, dtype_of(entry, turn));
        entry.make(random, trial);
        check(random, trial, turn);
      }
    }
  }
}

}  // namespace gradring::testing
