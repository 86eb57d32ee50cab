// A cast between any two dtypes: find_cast's where it has one, else a plain loop (integers, booleans and 16-bit floats as
// targets).
#pragma once

#include "ops/cast/cast.h"

namespace gradring {

// As NumPy's astype: to bool is `!= 0`, integers wrap, floats are cut towards zero (and, as there, anything may come
// of a float that the integer cannot hold). 16-bit floats are rounded once, to the nearest.
GRADRING_API Cast find_any_cast(Dtype to, Dtype from) noexcept;

}  // namespace gradring
