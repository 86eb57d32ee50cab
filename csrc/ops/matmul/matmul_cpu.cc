#include "ops/simd.h"
