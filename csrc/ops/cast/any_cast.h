// A cast between any two dtypes. It uses the kernel that find_cast returns. Where there is none (integers, booleans and most
// 16-bit floats as targets), it uses a plain loop.
#pragma once

#include "ops/cast/cast.h"

namespace gradring {

// Converts as NumPy's astype does: to bool it is `!= 0`, integers wrap, and floats are rounded towards zero. The result for a
// float that the integer type cannot hold is unspecified, as in NumPy. To 16-bit floats it rounds once, to the nearest.
Cast find_any_cast(Dtype to, Dtype from) noexcept;

}  // namespace gradring
