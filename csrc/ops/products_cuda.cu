#include <utility>

#include "cuda/device.h"
#include "cuda/failure.h"
#include "cuda/stream.h"
#include "ops/products_cuda.h"

namespace gradring::cuda {

namespace {

struct Types {
  int operands, result, compute, scale;
};
Types types_of(ProductDtypes dtypes, bool tf32) noexcept {
  switch (dtypes) {
    case ProductDtypes::kFloat64: return {lt::kReal64, lt::kReal64, lt::kCompute64, lt::kReal64};
    case ProductDtypes::kBfloat16: return {lt::kBfloat16, lt::kBfloat16, lt::kCompute32, lt::kReal32};
    case ProductDtypes::kBfloat16ToFloat32: return {lt::kBfloat16, lt::kReal32, lt::kCompute32, lt::kReal32};
    case ProductDtypes::kFloat16: return {lt::kFloat16, lt::kFloat16, lt::kCompute32, lt::kReal32};
    case ProductDtypes::kFloat16ToFloat32: return {lt::kFloat16, lt::kReal32, lt::kCompute32, lt::kReal32};
    default: return {lt::kReal32, lt::kReal32, tf32 ? lt::kComputeTf32 : lt::kCompute32, lt::kReal32};
  }
}

// The product with the alignment of its operands: views of arrays may begin anywhere.
CudaProduct at_addresses(CudaProduct product, const void* a, const void* b, const void* c) noexcept {
  constexpr uintptr_t kMost = 256;  // what a new allocation has
  const uintptr_t bits =
      reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) | reinterpret_cast<uintptr_t>(c) | kMost;
  product.alignment = static_cast<int>(bits & (~bits + 1));
  return product;
}

}  // namespace

// The descriptions of one product. cuBLAS is column-major: the memory of a row-major matrix is its transpose, so C' =
// op(B)' op(A)'.
struct Products::Call {
  const CublasLt& library;
  LtDescription product = nullptr, a = nullptr, b = nullptr, c = nullptr;
  int status = lt::kSuccess;

  Call(const CublasLt& lib, const CudaProduct& p, bool tf32) : library(lib) {
    const Types types = types_of(p.dtypes, tf32);
    const int first = p.trans_b ? lt::kTransposed : lt::kNormal, second = p.trans_a ? lt::kTransposed : lt::kNormal;
    const auto size = [](int64_t n) { return static_cast<uint64_t>(n); };
    step("cublasLtMatmulDescCreate", library.create_product(&product, types.compute, types.scale));
    if (status == lt::kSuccess)
      step("cublasLtMatmulDescSetAttribute", library.set_product(product, lt::kDescTransA, &first, sizeof first));
    if (status == lt::kSuccess)
      step("cublasLtMatmulDescSetAttribute", library.set_product(product, lt::kDescTransB, &second, sizeof second));
    if (status == lt::kSuccess) {
      step("cublasLtMatrixLayoutCreate",
           library.create_matrix(&a, types.operands, size(p.trans_b ? p.k : p.n), size(p.trans_b ? p.n : p.k), p.ldb));
    }
    if (status == lt::kSuccess) {
      step("cublasLtMatrixLayoutCreate",
           library.create_matrix(&b, types.operands, size(p.trans_a ? p.m : p.k), size(p.trans_a ? p.k : p.m), p.lda));
    }
    if (status == lt::kSuccess)
      step("cublasLtMatrixLayoutCreate", library.create_matrix(&c, types.result, size(p.n), size(p.m), p.ldc));
  }
  ~Call() {
    for (LtDescription each : {a, b, c}) {
      if (each) library.destroy_matrix(each);
    }
    if (product) library.destroy_product(product);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  void step(const char* call, int result) { status = noted(call, result); }
};

Products::Products(const CublasLt& library, std::string device, size_t workspace_bytes, bool tf32)
    : library_(library),
      origin_{std::move(device) + (tf32 ? " tf32" : ""), library.version()},
      workspace_bytes_(workspace_bytes),
      tf32_(tf32) {
  if (const int status = noted("cublasLtCreate", library_.create(&handle_)); status != lt::kSuccess) {
    throw_failure("matmul", kLibraryError + status);
  }
}

Products::~Products() { library_.destroy(handle_); }

Products::Key Products::key_of(const CudaProduct& p) {
  return {p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.trans_a, p.trans_b, p.dtypes, p.alignment};
}

bool Products::is_new(const CudaProduct& product) const {
  const std::lock_guard<std::mutex> held(mutex_);
  return choices_.find(key_of(product)) == choices_.end();
}

int Products::candidates(const CudaProduct& product, const Call& call, int wanted,
                         std::vector<LtHeuristic>* found) const {
  LtDescription preference = nullptr;
  int status = noted("cublasLtMatmulPreferenceCreate", library_.create_preference(&preference));
  if (status != lt::kSuccess) return status;
  status =
      noted("cublasLtMatmulPreferenceSetAttribute",
            library_.set_preference(preference, lt::kPreferWorkspaceBytes, &workspace_bytes_, sizeof workspace_bytes_));
  const auto alignment = static_cast<uint32_t>(product.alignment);
  for (const int each : {lt::kPreferAlignmentA, lt::kPreferAlignmentB, lt::kPreferAlignmentC, lt::kPreferAlignmentD}) {
    if (status != lt::kSuccess) break;
    status = noted("cublasLtMatmulPreferenceSetAttribute",
                   library_.set_preference(preference, each, &alignment, sizeof alignment));
  }
  found->resize(static_cast<size_t>(wanted));
  int count = 0;
  if (status == lt::kSuccess) {
    status =
        noted("cublasLtMatmulAlgoGetHeuristic", library_.heuristic(handle_, call.product, call.a, call.b, call.c,
                                                                   call.c, preference, wanted, found->data(), &count));
  }
  library_.destroy_preference(preference);
  found->resize(static_cast<size_t>(status == lt::kSuccess ? count : 0));
  if (status == lt::kSuccess && count == 0) return noted("cublasLtMatmulAlgoGetHeuristic", lt::kNotSupported);
  return status;
}

int Products::choose(const CudaProduct& product, const Call& call, RecordedAlgorithm* choice) const {
  const std::lock_guard<std::mutex> held(mutex_);
  const auto known = choices_.find(key_of(product));
  if (known != choices_.end()) {
    *choice = known->second;
    return lt::kSuccess;
  }
  std::vector<LtHeuristic> found;
  if (const int status = candidates(product, call, 1, &found); status != lt::kSuccess) return status;
  *choice = {product, found[0].algorithm, found[0].workspace_bytes};
  choices_.emplace(key_of(product), *choice);
  return lt::kSuccess;
}

int Products::run(const CudaProduct& given, const void* a, const void* b, void* c, bool accumulate,
                  const CudaQueue& queue, void* workspace) const noexcept {
  const CudaProduct product = at_addresses(given, a, b, c);
  try {
    if (tuning_ && is_new(product)) {
      int code = 0;
      const bool capturing = is_capturing(queue.stream, &code);
      if (code == 0 && !capturing) code = tune(product, a, b, c, queue, workspace);
      if (code != 0) return code;
    }
    const Call call(library_, product, tf32_);
    RecordedAlgorithm choice;
    int status = call.status;
    if (status == lt::kSuccess) status = choose(product, call, &choice);
    if (status != lt::kSuccess) return kLibraryError + status;
    const double wide[] = {1, accumulate ? 1.0 : 0.0};
    const float narrow[] = {1, accumulate ? 1.0f : 0.0f};
    const bool is_wide = product.dtypes == ProductDtypes::kFloat64;
    const void* alpha = is_wide ? static_cast<const void*>(wide) : narrow;
    const void* beta = is_wide ? static_cast<const void*>(wide + 1) : narrow + 1;
    status =
        noted("cublasLtMatmul", library_.run(handle_, call.product, alpha, b, call.a, a, call.b, beta, c, call.c, c,
                                             call.c, &choice.algorithm, workspace, workspace_bytes_, queue.stream));
    return status == lt::kSuccess ? 0 : kLibraryError + status;
  } catch (...) {
    return noted("a product's descriptions", kLibraryError + lt::kAllocFailed);
  }
}

int Products::tune(const CudaProduct& given, const void* a, const void* b, void* c, const CudaQueue& queue,
                   void* workspace) const {
  const CudaProduct product = at_addresses(given, a, b, c);
  const Call call(library_, product, tf32_);
  if (call.status != lt::kSuccess) return kLibraryError + call.status;
  std::vector<LtHeuristic> found;
  if (const int status = candidates(product, call, 8, &found); status != lt::kSuccess) return kLibraryError + status;
  cudaEvent_t begin = nullptr, end = nullptr;
  const auto stream = static_cast<cudaStream_t>(queue.stream);
  cudaError_t code = noted("cudaEventCreate", cudaEventCreate(&begin));
  if (code == cudaSuccess) code = noted("cudaEventCreate", cudaEventCreate(&end));
  RecordedAlgorithm best;
  float least = 0;
  for (const LtHeuristic& each : found) {
    if (code != cudaSuccess) break;
    {
      const std::lock_guard<std::mutex> held(mutex_);
      choices_[key_of(product)] = {product, each.algorithm, each.workspace_bytes};
    }
    constexpr int kRuns = 5;  // timed runs, after one that is not timed
    int status = run(product, a, b, c, false, queue, workspace);
    code = noted("cudaEventRecord", cudaEventRecord(begin, stream));
    for (int i = 0; i < kRuns && status == 0; ++i) status = run(product, a, b, c, false, queue, workspace);
    if (code == cudaSuccess) code = noted("cudaEventRecord", cudaEventRecord(end, stream));
    if (code == cudaSuccess) code = noted("cudaEventSynchronize", cudaEventSynchronize(end));
    float time = 0;
    if (code == cudaSuccess) code = noted("cudaEventElapsedTime", cudaEventElapsedTime(&time, begin, end));
    if (status == 0 && (best.product.m == 0 || time < least)) {
      best = {product, each.algorithm, each.workspace_bytes};
      least = time;
    }
  }
  if (begin) (void)cudaEventDestroy(begin);
  if (end) (void)cudaEventDestroy(end);
  const std::lock_guard<std::mutex> held(mutex_);
  if (code != cudaSuccess || best.product.m == 0) {
    choices_.erase(key_of(product));
    return code != cudaSuccess ? static_cast<int>(code) : kLibraryError + lt::kNotSupported;
  }
  choices_[key_of(product)] = best;
  return 0;
}

std::vector<RecordedAlgorithm> Products::record() const {
  const std::lock_guard<std::mutex> held(mutex_);
  std::vector<RecordedAlgorithm> all;
  for (const auto& [key, choice] : choices_) all.push_back(choice);
  return all;
}

bool Products::restore(const ProductsOrigin& origin, const std::vector<RecordedAlgorithm>& choices) {
  if (!(origin == origin_)) return false;
  for (const RecordedAlgorithm& each : choices) {
    // A record comes from a file: the library decides whether the algorithm fits the product.
    const Call call(library_, each.product, tf32_);
    if (call.status != lt::kSuccess) return false;
    LtHeuristic found{};
    if (library_.check(handle_, call.product, call.a, call.b, call.c, call.c, &each.algorithm, &found) !=
            lt::kSuccess ||
        found.workspace_bytes > workspace_bytes_) {
      return false;
    }
  }
  const std::lock_guard<std::mutex> held(mutex_);
  if (!tuning_) choices_.clear();
  for (const RecordedAlgorithm& each : choices) choices_[key_of(each.product)] = each;
  return true;
}

void Products::forget() {
  const std::lock_guard<std::mutex> held(mutex_);
  choices_.clear();
}

}  // namespace gradring::cuda
