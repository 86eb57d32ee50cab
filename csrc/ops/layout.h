// The layouts of arrays that kernels read without a copy.
#pragma once

#include <cstdint>

#include "ops/op.h"

namespace gradring {

// Whether an array of two dimensions that is not dense lies as a kernel for this layout takes it: as dense vectors side by side,
// with gaps between them. `overlap`: the vectors may share memory, as those of an array that numpy.broadcast_to made do.
inline bool has_dense_vectors(Layout layout, const int64_t* shape, const int64_t* strides, int64_t item,
                              bool overlap) noexcept {
  const auto dense_along = [=](int axis) {
    const int64_t extent = shape[axis], count = shape[1 - axis], apart = strides[1 - axis];
    return (extent <= 1 || strides[axis] == item) &&
           (count <= 1 || (apart % item == 0 && (overlap || apart / item >= extent)));
  };
  if (layout == Layout::kDense) return false;
  return dense_along(1) || (layout == Layout::kMatrix && dense_along(0));
}

}  // namespace gradring
