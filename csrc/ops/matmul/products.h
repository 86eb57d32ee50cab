// How fp32 products are computed: by multiply-adds, or as sums of products of bf16 pieces (ops/tiles/pieces.h).
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

enum class Products : uint8_t { kFma, kPieces3, kPieces2 };
inline constexpr const char* kProductsNames[] = {"fma", "pieces3", "pieces2"};

// The choice of eager calls that are not given one; fma at first.
GRADRING_API Products default_products() noexcept;
GRADRING_API void set_default_products(Products products) noexcept;

}  // namespace gradring
