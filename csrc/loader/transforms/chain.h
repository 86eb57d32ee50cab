// ChainStage: casts and arithmetic, element by element.
#pragma once

#include <cstdint>
#include <vector>

#include "loader/transforms/image.h"
#include "loader/transforms/kernels.h"
#include "loader/transforms/plan.h"
#include "ops/cast/cast.h"

namespace gradring {

// One operation with its operands: one for all, one per channel (along the last axis, or per plane), or one per element.
struct ChainStep {
  enum class Pattern : uint8_t { kScalar, kLastAxis, kPlanes, kElements };
  ChainOp op = ChainOp::kMul;
  Pattern pattern = Pattern::kScalar;
  std::vector<double> operands;
};

// Computes x.astype(to), and then the steps in that dtype. If there are steps, `to` is a floating-point dtype.
class ChainStage final : public Stage {
 public:
  // `spec` describes the rows that come in.
  ChainStage(const FieldSpec& spec, Dtype to, const std::vector<ChainStep>& steps, int64_t planes);

  Status run(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch) const noexcept override;
  // Computes the elements [first, first + count) of the row, which lie at `from`, and writes them to `to`. Returns the end of what
  // it wrote.
  std::byte* run_part(const std::byte* from, std::byte* to, int64_t first, int64_t count) const noexcept;

 private:
  // Operands in the form that the kernels take. T is the type that the chain computes in.
  template <class T>
  struct Operands {
    std::vector<std::vector<T>> values;  // [step], each period_ long
  };

  template <class T>
  void expand(const std::vector<ChainStep>& steps, int64_t last_axis, Operands<T>* operands) const;
  void lay_out(const FieldSpec& spec, const std::vector<ChainStep>& steps, int64_t planes);
  void pick_kernel();
  bool quotient_is_exact() const;
  void segment(const std::byte* from, std::byte* to, int64_t count, int64_t phase) const noexcept;
  void apply(float* to, int64_t count, int64_t phase) const noexcept;
  void apply(double* to, int64_t count, int64_t phase) const noexcept;

  Dtype from_;
  Dtype to_;
  int64_t elements_;
  Cast cast_;
  std::vector<ChainOp> ops_;
  Operands<float> float32_;
  Operands<double> float64_;
  int64_t period_ = 1;    // operands repeat after this many elements; 1: they are scalars
  int64_t distinct_ = 1;  // how many different operands there are
  int64_t plane_elements_ =
      0;  // if not 0, there is one operand per plane of this many elements; period_ counts the planes
  ChainKernel<float> fused_ = nullptr;
  std::vector<float> reciprocals_;  // the reciprocals of the divisors, if fused_ uses them
};

}  // namespace gradring
