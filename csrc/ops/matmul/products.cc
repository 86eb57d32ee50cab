// | variable | writer               | readers          | order   | why                        |
// |----------|----------------------|------------------|---------|----------------------------|
// | chosen   | set_default_products | default_products | relaxed | a number that stands alone |
#include "ops/matmul/products.h"

#include <atomic>

namespace gradring {

namespace {

std::atomic<Products> chosen{Products::kFma};

}  // namespace

Products default_products() noexcept { return chosen.load(std::memory_order_relaxed); }

void set_default_products(Products products) noexcept { chosen.store(products, std::memory_order_relaxed); }

}  // namespace gradring
