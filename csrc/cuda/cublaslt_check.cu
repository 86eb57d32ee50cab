// Compares our declarations of cuBLASLt with NVIDIA's header, if it exists: the values, the structures, and how each function
// passes its result and its parameters. scripts/check_cublaslt.py shows that a difference does not compile.
#include <type_traits>

#include "cuda/cublaslt.h"
#include "cuda/device.h"

namespace gradring::cuda {

namespace {

// Whether a function's caller passes both types alike: as pointers, or as integers (enumerations too) of one size.
template <class A, class B>
constexpr bool kPassedAlike = sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B> &&
                              std::is_floating_point_v<A> == std::is_floating_point_v<B>;

template <class Ours, class Theirs>
struct CalledAlike : std::false_type {};
template <class R, class... P, class S, class... Q>
  requires(sizeof...(P) == sizeof...(Q))
struct CalledAlike<R (*)(P...), S (*)(Q...)> : std::bool_constant<kPassedAlike<R, S> && (kPassedAlike<P, Q> && ...)> {};

static_assert(CalledAlike<int (*)(void*, uint64_t), int (*)(const char*, int64_t)>::value);
static_assert(!CalledAlike<int (*)(void*, uint64_t), int (*)(void*, int)>::value);
static_assert(!CalledAlike<int (*)(void*), int (*)(uint64_t)>::value);
static_assert(!CalledAlike<int (*)(void*), int (*)(void*, void*)>::value);
static_assert(!CalledAlike<int (*)(int), int (*)(float)>::value);

}  // namespace

}  // namespace gradring::cuda

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

namespace gradring::cuda {

namespace {

#define GRADRING_SAME_CALL(member, function) \
  static_assert(CalledAlike<decltype(CublasLt::member), decltype(&function)>::value, #function)
GRADRING_SAME_CALL(version, cublasLtGetVersion);
GRADRING_SAME_CALL(create, cublasLtCreate);
GRADRING_SAME_CALL(destroy, cublasLtDestroy);
GRADRING_SAME_CALL(create_product, cublasLtMatmulDescCreate);
GRADRING_SAME_CALL(destroy_product, cublasLtMatmulDescDestroy);
GRADRING_SAME_CALL(set_product, cublasLtMatmulDescSetAttribute);
GRADRING_SAME_CALL(create_matrix, cublasLtMatrixLayoutCreate);
GRADRING_SAME_CALL(destroy_matrix, cublasLtMatrixLayoutDestroy);
GRADRING_SAME_CALL(create_preference, cublasLtMatmulPreferenceCreate);
GRADRING_SAME_CALL(destroy_preference, cublasLtMatmulPreferenceDestroy);
GRADRING_SAME_CALL(set_preference, cublasLtMatmulPreferenceSetAttribute);
GRADRING_SAME_CALL(heuristic, cublasLtMatmulAlgoGetHeuristic);
GRADRING_SAME_CALL(check, cublasLtMatmulAlgoCheck);
GRADRING_SAME_CALL(run, cublasLtMatmul);
#undef GRADRING_SAME_CALL

static_assert(sizeof(LtAlgorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(LtHeuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(LtHeuristic, workspace_bytes) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(LtHeuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(offsetof(LtHeuristic, waves) == offsetof(cublasLtMatmulHeuristicResult_t, wavesCount));
static_assert(lt::kSuccess == static_cast<int>(CUBLAS_STATUS_SUCCESS));
static_assert(lt::kNotInitialized == static_cast<int>(CUBLAS_STATUS_NOT_INITIALIZED));
static_assert(lt::kAllocFailed == static_cast<int>(CUBLAS_STATUS_ALLOC_FAILED));
static_assert(lt::kInvalidValue == static_cast<int>(CUBLAS_STATUS_INVALID_VALUE));
static_assert(lt::kExecutionFailed == static_cast<int>(CUBLAS_STATUS_EXECUTION_FAILED));
static_assert(lt::kNotSupported == static_cast<int>(CUBLAS_STATUS_NOT_SUPPORTED));
static_assert(lt::kNormal == static_cast<int>(CUBLAS_OP_N) && lt::kTransposed == static_cast<int>(CUBLAS_OP_T));
static_assert(lt::kCompute32 == static_cast<int>(CUBLAS_COMPUTE_32F));
static_assert(lt::kCompute64 == static_cast<int>(CUBLAS_COMPUTE_64F));
static_assert(lt::kComputeTf32 == static_cast<int>(CUBLAS_COMPUTE_32F_FAST_TF32));
static_assert(lt::kReal32 == static_cast<int>(CUDA_R_32F) && lt::kReal64 == static_cast<int>(CUDA_R_64F));
static_assert(lt::kBfloat16 == static_cast<int>(CUDA_R_16BF));
static_assert(lt::kFloat16 == static_cast<int>(CUDA_R_16F));
static_assert(lt::kDescTransA == static_cast<int>(CUBLASLT_MATMUL_DESC_TRANSA));
static_assert(lt::kDescTransB == static_cast<int>(CUBLASLT_MATMUL_DESC_TRANSB));
static_assert(lt::kPreferWorkspaceBytes == static_cast<int>(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES));
static_assert(lt::kPreferAlignmentA == static_cast<int>(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES));
static_assert(lt::kPreferAlignmentB == static_cast<int>(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES));
static_assert(lt::kPreferAlignmentC == static_cast<int>(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES));
static_assert(lt::kPreferAlignmentD == static_cast<int>(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES));

}  // namespace

}  // namespace gradring::cuda

#elif defined(GRADRING_NEEDS_CUBLASLT)
#error "there is no cublasLt.h"
#endif
