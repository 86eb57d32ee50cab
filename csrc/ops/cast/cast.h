// cast: converts a row of elements to the dtype that a program computes in.
#pragma once

#include <cstdint>

#include "runtime/dtype.h"

namespace gradring {

// to[i] = static_cast<To>(from[i]), through float where From has 16 bits. `from` need not be aligned. A value that To
// cannot hold becomes what C++ makes of it on this platform; the loss checks the range of labels later.
using Cast = void (*)(void* to, const void* from, int64_t count);

// The kernel for a pair of dtypes, at the active ISA level. There are kernels from any dtype to float32, float64 and int64, and
// from float32 to float16 and bfloat16. For other pairs it returns null.
Cast find_cast(Dtype to, Dtype from) noexcept;

}  // namespace gradring
