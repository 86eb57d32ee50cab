// Where a CUDA kernel is queued, in types that need no CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradring {

struct CudaQueue;

// The dtypes of a product's operands, and of its result where that differs. Products of 16-bit floats are summed in
// float32. Records of algorithms hold these numbers.
enum class ProductDtypes : uint8_t { kFloat32, kFloat64, kBfloat16, kBfloat16ToFloat32, kFloat16, kFloat16ToFloat32 };

// C = op(A) op(B), row-major, where op(A) is m x k and op(B) k x n.
struct CudaProduct {
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;  // elements between rows as they lie in memory
  bool trans_a = false, trans_b = false;
  ProductDtypes dtypes = ProductDtypes::kFloat32;
  int alignment = 0;  // all three addresses are multiples of it, up to 256; the library's caller sets it
};

// Multiplies matrices by a library that is loaded at run time, and knows the algorithm for each shape.
class CudaProducts {
 public:
  virtual ~CudaProducts() = default;
  // Queues C = op(A) op(B), plus C's old value if `accumulate`. Returns 0, or an error code of the CUDA runtime or of
  // the library.
  virtual int run(const CudaProduct& product, const void* a, const void* b, void* c, bool accumulate,
                  const CudaQueue& queue, void* workspace) const noexcept = 0;
  // How many bytes of device memory `workspace` has. One call at a time uses it.
  virtual size_t workspace_bytes() const noexcept = 0;
};

struct CudaQueue {
  void* stream = nullptr;                  // a cudaStream_t
  int processors = 1;                      // how many multiprocessors the device has
  void* scratch = nullptr;                 // device memory that only this call uses, if its kernel asked for some
  const CudaProducts* products = nullptr;  // null: ops that multiply matrices report cudaErrorNotSupported
};

}  // namespace gradring
