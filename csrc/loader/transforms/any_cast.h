// A cast between any two dtypes: ops/cast where it has one, a plain loop otherwise (integers, booleans and half floats as targets).
#pragma once

#include "ops/cast/cast.h"

namespace gradring {

// As NumPy's astype: to bool is `!= 0`, integers wrap, floats are cut towards zero (and, as there, anything may come
// of a float that the integer cannot hold). Half floats are rounded once, to the nearest.
Cast find_any_cast(Dtype to, Dtype from) noexcept;

}  // namespace gradring
