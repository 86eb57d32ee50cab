#include "ops/cast/kernels.h"
#include "ops/cast/simd_half.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// A plain loop, which compilers turn into the ISA's conversions; memcpy because a row of a memory-mapped record may
// start anywhere.
template <class To, class From>
void cast(void* to, const void* from, int64_t count) {
  auto* out = static_cast<To*>(to);
  const auto* in = static_cast<const char*>(from);
  for (int64_t i = 0; i < count; ++i) {
    From value;
    __builtin_memcpy(&value, in + i * static_cast<int64_t>(sizeof(From)), sizeof value);
    out[i] = static_cast<To>(value);
  }
}

void cast_half_to_float(void* to, const void* from, int64_t count) {
  halves_to_floats(static_cast<float*>(to), static_cast<const char*>(from), count);
}

template <class To>
void cast_half(void* to, const void* from, int64_t count) {
  constexpr int64_t kBlock = 256;
  float block[kBlock];
  auto* out = static_cast<To*>(to);
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t n = count - first < kBlock ? count - first : kBlock;
    halves_to_floats(block, static_cast<const char*>(from) + 2 * first, n);
    for (int64_t i = 0; i < n; ++i) out[first + i] = static_cast<To>(block[i]);
  }
}

template <class T>
void copy(void* to, const void* from, int64_t count) {
  if (count > 0) __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(T));  // no elements may have no address
}

}  // namespace

#define GRADRING_CASTS(To, same32, same64, same_int, half) \
  {same32,                                                 \
   same64,                                                 \
   cast<To, uint8_t>,                                      \
   cast<To, int8_t>,                                       \
   cast<To, int16_t>,                                      \
   cast<To, int32_t>,                                      \
   same_int,                                               \
   cast<To, uint8_t>,                                      \
   cast<To, uint16_t>,                                     \
   cast<To, uint32_t>,                                     \
   cast<To, uint64_t>,                                     \
   half}

extern const CastKernels cast_kernels;
const CastKernels cast_kernels = {
    GRADRING_CASTS(float, copy<float>, (cast<float, double>), (cast<float, int64_t>), cast_half_to_float),
    GRADRING_CASTS(double, (cast<double, float>), copy<double>, (cast<double, int64_t>), cast_half<double>),
    GRADRING_CASTS(int64_t, (cast<int64_t, float>), (cast<int64_t, double>), copy<int64_t>, cast_half<int64_t>),
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE
