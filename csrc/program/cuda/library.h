// Facts and tools that an engine needs from a device: its number of multiprocessors, and the library that multiplies matrices.
#pragma once

#include <memory>

#include "ops/products_cuda.h"

namespace gradring::cuda {

// Throws Error if there is no such device.
int processors_of(int device);

// library: what dlopen returned for cuBLASLt; the software device has its own and ignores it. tune: the first run of each shape
// chooses the algorithm by timing. tf32: products of float32 read tf32. Throws Error.
std::unique_ptr<Products> make_products(int device, void* library, bool tune, bool tf32 = false);

}  // namespace gradring::cuda
