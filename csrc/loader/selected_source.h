// SelectedSource: some samples of a source, in an order of their own; no sample is copied.
#pragma once

#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/permutation.h"
#include "loader/source.h"

namespace gradring {

// Which samples of a source: the i-th one is number map(i).
class Selection {
 public:
  virtual ~Selection() = default;
  virtual int64_t length() const noexcept = 0;
  // Of positions in [0, length); samples may be the same memory.
  virtual void map(const int64_t* positions, int64_t rows, int64_t* samples) const noexcept = 0;
};

// The samples with these numbers. Throws Error if one is not in [0, length).
GRADRING_API std::shared_ptr<const Selection> select_numbers(std::vector<int64_t> numbers, int64_t length);

// A part of all samples in constant memory: those from `begin` to `end` of their order, or all others. The order is that of
// a permutation, or the source's own. Throws Error: an empty part, or bounds outside [0, length).
struct Part {
  int64_t begin = 0;
  int64_t end = 0;
  bool others = false;
  bool shuffle = true;
  uint64_t seed = 0;
};
GRADRING_API std::shared_ptr<const Selection> select_part(const Part& part, int64_t length);

// Random transforms within `source` are keyed by its own numbers, so a sample's transforms do not depend on the selection.
GRADRING_API std::shared_ptr<const Source> select(std::shared_ptr<const Source> source,
                                                  std::shared_ptr<const Selection> selection);

}  // namespace gradring
