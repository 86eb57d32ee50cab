// How an image lies in a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "loader/transform.h"

namespace gradring {

// HWC is one plane whose pixels have all channels; CHW is one plane per channel, whose pixels have one element.
struct ImageShape {
  int64_t planes = 1;
  int64_t height = 1;
  int64_t width = 1;
  int64_t channels = 1;  // how many channels a pixel has
  size_t height_axis = 0;
};

// Throws Error, with a message that begins with `where`, if the row is not an image, or if its layout cannot be guessed.
ImageShape image_shape(const FieldSpec& spec, ImageLayout layout, const std::string& where);

}  // namespace gradring
