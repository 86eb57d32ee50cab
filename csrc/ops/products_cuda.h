// Products of matrices by cuBLASLt. The algorithm for a shape is the heuristic's first, or one that was recorded or chosen by
// timing: two runs with the same record have the same bits.
//
// A product that is timed is computed into its own result, again and again, by each algorithm. So its first run must be outside of
// a captured graph, and the caller must not mind that it waits for the device.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/cublaslt.h"
#include "cuda/failure.h"
#include "ops/cuda_queue.h"

namespace gradring::cuda {

// The device and the library that a record of algorithms is valid for.
struct ProductsOrigin {
  std::string device;
  size_t library = 0;  // its version
  bool operator==(const ProductsOrigin&) const = default;
};

struct RecordedAlgorithm {
  CudaProduct product;
  LtAlgorithm algorithm{};
  size_t workspace_bytes = 0;
};

class Products final : public CudaProducts {
 public:
  // workspace_bytes is the most that an algorithm may use. With `tf32`, products of float32 read their operands as tf32: rounded to
  // 10 bits behind the first one, with sums in float32. A record of algorithms is then of another origin. Throws Error if the
  // library refuses.
  Products(const CublasLt& library, std::string device, size_t workspace_bytes, bool tf32 = false);
  ~Products() override;
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  int run(const CudaProduct& product, const void* a, const void* b, void* c, bool accumulate, const CudaQueue& queue,
          void* workspace) const noexcept override;
  size_t workspace_bytes() const noexcept override { return workspace_bytes_; }

  // Whether the first run of each shape times the heuristic's algorithms.
  void set_tuning(bool on) noexcept { tuning_ = on; }
  // Times the heuristic's algorithms for a product on arrays of its size, and keeps the fastest. Returns a code of the CUDA
  // runtime, or of cuBLAS plus kLibraryError.
  int tune(const CudaProduct& product, const void* a, const void* b, void* c, const CudaQueue& queue,
           void* workspace) const;

  const ProductsOrigin& origin() const noexcept { return origin_; }
  // Returns the algorithms that were chosen so far.
  std::vector<RecordedAlgorithm> record() const;
  // Uses the choices of an earlier run, and without tuning no others. Returns false, and uses none, if they belong to another device or library, or if one of
  // them does not fit its product or needs more memory.
  bool restore(const ProductsOrigin& origin, const std::vector<RecordedAlgorithm>& choices);
  void forget();  // all choices

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, bool, ProductDtypes, int>;
  struct Call;
  static Key key_of(const CudaProduct& product);
  bool is_new(const CudaProduct& product) const;
  int candidates(const CudaProduct& product, const Call& call, int wanted, std::vector<LtHeuristic>* found) const;
  int choose(const CudaProduct& product, const Call& call, RecordedAlgorithm* choice) const;

  CublasLt library_;
  ProductsOrigin origin_;
  size_t workspace_bytes_;
  bool tf32_;
  bool tuning_ = false;
  LtHandle handle_ = nullptr;
  mutable std::mutex mutex_;
  mutable std::map<Key, RecordedAlgorithm> choices_;
};

// The choices as lines of text, for plans and checkpoints, and back. read_choices returns false if the text is none.
std::string choices_text(const ProductsOrigin& origin, const std::vector<RecordedAlgorithm>& choices);
bool read_choices(const std::string& text, ProductsOrigin* origin, std::vector<RecordedAlgorithm>* choices);

}  // namespace gradring::cuda
