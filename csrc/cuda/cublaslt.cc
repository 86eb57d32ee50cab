#include "cuda/cublaslt.h"

#include <dlfcn.h>

#include <type_traits>

namespace gradring::cuda {

const char* load_cublaslt(void* library, CublasLt* table) noexcept {
  const char* missing = nullptr;
  const auto take = [&](auto* function, const char* name) {
    void* symbol = dlsym(library, name);
    if (!symbol && !missing) missing = name;
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(symbol);
  };
  take(&table->version, "cublasLtGetVersion");
  take(&table->create, "cublasLtCreate");
  take(&table->destroy, "cublasLtDestroy");
  take(&table->create_product, "cublasLtMatmulDescCreate");
  take(&table->destroy_product, "cublasLtMatmulDescDestroy");
  take(&table->set_product, "cublasLtMatmulDescSetAttribute");
  take(&table->create_matrix, "cublasLtMatrixLayoutCreate");
  take(&table->destroy_matrix, "cublasLtMatrixLayoutDestroy");
  take(&table->create_preference, "cublasLtMatmulPreferenceCreate");
  take(&table->destroy_preference, "cublasLtMatmulPreferenceDestroy");
  take(&table->set_preference, "cublasLtMatmulPreferenceSetAttribute");
  take(&table->heuristic, "cublasLtMatmulAlgoGetHeuristic");
  take(&table->check, "cublasLtMatmulAlgoCheck");
  take(&table->run, "cublasLtMatmul");
  return missing;
}

}  // namespace gradring::cuda
