// How fp32 products are computed: by multiply-adds, or as sums of products of bf16 pieces (ops/tiles/pieces.h).
#pragma once

#include <cstdint>

namespace gradring {

enum class Products : uint8_t { kFma, kPieces3, kPieces2 };
inline constexpr const char* kProductsNames[] = {"fma", "pieces3", "pieces2"};

}  // namespace gradring
