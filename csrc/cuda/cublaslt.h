// The functions of cuBLASLt that products call, as a table of symbols. The library is loaded when it is first needed, from the
// folder that cuda-pathfinder finds, and stays loaded. The declarations are our own, so that a build needs no header of cuBLAS;
// if the header exists, cublaslt_check.cu compares them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradring::cuda {

using LtHandle = void*;
using LtDescription = void*;  // the description of a product, a matrix or a preference
using LtStream = void*;       // a cudaStream_t

struct LtAlgorithm {
  uint64_t data[8];
};
struct LtHeuristic {
  LtAlgorithm algorithm;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

// Values of cuBLASLt's enumerations.
namespace lt {
inline constexpr int kSuccess = 0, kNotInitialized = 1, kAllocFailed = 3, kInvalidValue = 7, kExecutionFailed = 13,
                     kNotSupported = 15;
inline constexpr int kNormal = 0, kTransposed = 1;
inline constexpr int kCompute32 = 68, kCompute64 = 70, kComputeTf32 = 77;
inline constexpr int kReal32 = 0, kReal64 = 1, kFloat16 = 2, kBfloat16 = 14;
inline constexpr int kDescTransA = 3, kDescTransB = 4;
inline constexpr int kPreferWorkspaceBytes = 1;
// The least alignment of the operands' addresses, in bytes: the library expects 256 if it is not told.
inline constexpr int kPreferAlignmentA = 5, kPreferAlignmentB = 6, kPreferAlignmentC = 7, kPreferAlignmentD = 8;
}  // namespace lt

struct CublasLt {
  size_t (*version)() = nullptr;
  int (*create)(LtHandle*) = nullptr;
  int (*destroy)(LtHandle) = nullptr;
  int (*create_product)(LtDescription*, int compute, int scale) = nullptr;
  int (*destroy_product)(LtDescription) = nullptr;
  int (*set_product)(LtDescription, int attribute, const void* value, size_t bytes) = nullptr;
  int (*create_matrix)(LtDescription*, int type, uint64_t rows, uint64_t columns, int64_t leading) = nullptr;
  int (*destroy_matrix)(LtDescription) = nullptr;
  int (*create_preference)(LtDescription*) = nullptr;
  int (*destroy_preference)(LtDescription) = nullptr;
  int (*set_preference)(LtDescription, int attribute, const void* value, size_t bytes) = nullptr;
  int (*heuristic)(LtHandle, LtDescription product, LtDescription a, LtDescription b, LtDescription c, LtDescription d,
                   LtDescription preference, int wanted, LtHeuristic* found, int* count) = nullptr;
  // Whether an algorithm that was recorded can make the product, and how much memory it needs.
  int (*check)(LtHandle, LtDescription product, LtDescription a, LtDescription b, LtDescription c, LtDescription d,
               const LtAlgorithm*, LtHeuristic* found) = nullptr;
  int (*run)(LtHandle, LtDescription product, const void* alpha, const void* a, LtDescription a_matrix, const void* b,
             LtDescription b_matrix, const void* beta, const void* c, LtDescription c_matrix, void* d,
             LtDescription d_matrix, const LtAlgorithm*, void* workspace, size_t workspace_bytes, LtStream) = nullptr;
};

// Fills the table from a loaded library, the result of dlopen. Returns the name of a missing symbol, or null.
const char* load_cublaslt(void* library, CublasLt* table) noexcept;

#ifdef GRADRING_SOFTWARE_DEVICE
// The table of the software device: products with sums in double, by two algorithms that differ in their last bits.
const CublasLt& software_cublaslt() noexcept;
#endif

}  // namespace gradring::cuda
