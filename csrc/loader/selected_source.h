// SelectedSource: some samples of a source, in any order, without copies of samples.
#pragma once

#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/permutation.h"
#include "loader/source.h"

namespace gradring {

// Says which samples of a source are selected: the i-th one is number map(i).
class Selection {
 public:
  virtual ~Selection() = default;
  virtual int64_t length() const noexcept = 0;
  // Maps positions in [0, length) to numbers. `samples` may be the same memory as `positions`.
  virtual void map(const int64_t* positions, int64_t rows, int64_t* samples) const noexcept = 0;
};

// Selects the samples with these numbers. Throws Error if one is not in [0, length).
GRADRING_API std::shared_ptr<const Selection> select_numbers(std::vector<int64_t> numbers, int64_t length);

// Selects a part of all samples in constant memory: those from `begin` to `end` of their order, or all others. The order is
// a permutation, or the source's own. Throws Error if the part is empty, or a bound is not in [0, length].
struct SelectedPart {
  int64_t begin = 0;
  int64_t end = 0;
  bool others = false;
  bool shuffle = true;
  uint64_t seed = 0;
};
GRADRING_API std::shared_ptr<const Selection> select_part(const SelectedPart& part, int64_t length);

// Random transforms within `source` are keyed by its own numbers, so a sample's transforms do not depend on the selection.
GRADRING_API std::shared_ptr<const Source> select(std::shared_ptr<const Source> source,
                                                  std::shared_ptr<const Selection> selection);

}  // namespace gradring
