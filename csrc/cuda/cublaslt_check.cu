// Compares our declarations of cuBLASLt with NVIDIA's header, if it exists.
#include "cuda/cublaslt.h"
#include "cuda/device.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

namespace gradring::cuda {

static_assert(sizeof(LtAlgorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(LtHeuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(LtHeuristic, workspace_bytes) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(LtHeuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(sizeof(cublasStatus_t) == sizeof(int) && sizeof(cublasLtHandle_t) == sizeof(LtHandle));
static_assert(lt::kSuccess == static_cast<int>(CUBLAS_STATUS_SUCCESS));
static_assert(lt::kNotInitialized == static_cast<int>(CUBLAS_STATUS_NOT_INITIALIZED));
static_assert(lt::kAllocFailed == static_cast<int>(CUBLAS_STATUS_ALLOC_FAILED));
static_assert(lt::kInvalidValue == static_cast<int>(CUBLAS_STATUS_INVALID_VALUE));
static_assert(lt::kExecutionFailed == static_cast<int>(CUBLAS_STATUS_EXECUTION_FAILED));
static_assert(lt::kNotSupported == static_cast<int>(CUBLAS_STATUS_NOT_SUPPORTED));
static_assert(lt::kNormal == static_cast<int>(CUBLAS_OP_N) && lt::kTransposed == static_cast<int>(CUBLAS_OP_T));
static_assert(lt::kCompute32 == static_cast<int>(CUBLAS_COMPUTE_32F));
static_assert(lt::kCompute64 == static_cast<int>(CUBLAS_COMPUTE_64F));
static_assert(lt::kReal32 == static_cast<int>(CUDA_R_32F) && lt::kReal64 == static_cast<int>(CUDA_R_64F));
static_assert(lt::kDescTransA == static_cast<int>(CUBLASLT_MATMUL_DESC_TRANSA));
static_assert(lt::kDescTransB == static_cast<int>(CUBLASLT_MATMUL_DESC_TRANSB));
static_assert(lt::kPreferWorkspaceBytes == static_cast<int>(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES));

}  // namespace gradring::cuda

#endif
