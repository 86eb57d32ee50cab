// RowPlan: the transforms of one field, compiled into stages that each take a row to a row.
//
// Compiling turns the list into as few stages as it can: neighbouring crops and flips are one window, neighbouring
// casts and arithmetic one chain, and a chain that follows a window is run on strips of it that stay in the first-level
// cache. Arithmetic before a window is moved behind it where that changes no bit. What remains apart (a foreign
// function, a one-hot) hands its row on in scratch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gradring/export.h"
#include "loader/transform.h"
#include "runtime/philox.h"

namespace gradring {

class Stage {
 public:
  virtual ~Stage() = default;
  virtual Status run(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch) const noexcept = 0;
  virtual size_t scratch_bytes() const noexcept { return 0; }
};

class RowPlan {
 public:
  // `field` is the field's place in the source. Throws Error if a transform does not fit what comes before it.
  GRADRING_API RowPlan(const FieldSpec& input, const std::vector<TransformStep>& steps, int field);
  GRADRING_API ~RowPlan();

  const FieldSpec& output() const noexcept { return output_; }
  size_t scratch_bytes() const noexcept { return 2 * between_bytes_ + stage_bytes_; }
  // `stage_ns` is null, or where run adds the time of each stage, which costs one reading of the clock per stage.
  Status run(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch,
             uint64_t* stage_ns = nullptr) const noexcept;
  // The names of the stages, for statistics.
  const std::vector<std::string>& names() const noexcept { return names_; }

 private:
  Status run_timed(const std::byte* from, std::byte* to, const RowKey& key, std::byte* scratch,
                   uint64_t* ns) const noexcept;

  std::vector<std::string> names_;
  std::vector<std::unique_ptr<const Stage>> stages_;
  FieldSpec output_;
  size_t between_bytes_ = 0;  // the size of the longest row between two stages
  size_t stage_bytes_ = 0;
};

// 128 random bits of a sample at a place: (field, place in the field's list of transforms).
struct RandomPlace {
  uint32_t field = 0;
  uint32_t index = 0;
};
PhiloxWords random_words(const RowKey& key, RandomPlace place) noexcept;
// Uniform in [0, n), n < 2^32: Lemire's multiply and shift without rejection (its bias is below n / 2^32).
inline int64_t uniform(uint32_t word, int64_t n) noexcept {
  return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(n)) >> 32);
}

}  // namespace gradring
