// The attribute of ops that multiply fp32 matrices: how they do it.
#pragma once

#include <array>

#include "ops/matmul/products.h"
#include "ops/op.h"

namespace gradring {

inline constexpr Attribute kProductsAttribute = {
    .name = "products", .type = AttributeType::kChoice, .choices = kProductsNames, .method = true};

// An op's attributes with this one after them.
template <size_t kCount>
constexpr std::array<Attribute, kCount + 1> with_products(const Attribute (&attributes)[kCount]) noexcept {
  std::array<Attribute, kCount + 1> all{};
  for (size_t i = 0; i < kCount; ++i) all[i] = attributes[i];
  all[kCount] = kProductsAttribute;
  return all;
}

inline Products products_of(const OpCall& call, int attribute) noexcept {
  return static_cast<Products>(call.integer(attribute));
}

}  // namespace gradring
