// How an image lies in a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "loader/transform.h"

namespace gradring {

// HWC is one plane whose pixels have all channels; CHW is a plane a channel with pixels of one element.
struct ImageShape {
  int64_t planes = 1;
  int64_t height = 1;
  int64_t width = 1;
  int64_t channels = 1;  // of a pixel
  size_t height_axis = 0;
};

// Throws Error, its message beginning with `where`: not an image, or one whose layout must be said.
ImageShape image_shape(const FieldSpec& spec, ImageLayout layout, const std::string& where);

}  // namespace gradring
