// Order: computes which samples make up batch k of a rank's epoch, and stores no list of them.
//
// The epoch is one sequence of positions 0 .. samples - 1, the same on every rank; a keyed bijection takes a position
// to its sample. From position `start` on, rank r of w takes every w-th position, beginning with start + r, so that
// after k batches on every rank exactly the positions below start + k * batch_size * w were delivered: that one
// number is what a resume needs, also with another number of ranks.
//
// With `blocks`, batch k of all ranks together has the next batch_size * w positions, or those that are left, and each rank has a
// block of neighbours of them: of n, rank r has those from n r / w to n (r + 1) / w. Shards are such blocks of a batch, so the
// shards of a rank lie beside each other, and which samples a shard has does not depend on the number of ranks. The number
// for a resume is the same.
#pragma once

#include <cstdint>

#include "gradring/export.h"
#include "loader/permutation.h"
#include "runtime/status.h"

namespace gradring {

struct OrderOptions {
  int64_t samples = 0;
  int64_t batch_size = 1;
  uint64_t seed = 0;
  uint64_t epoch = 0;
  int64_t rank = 0;
  int64_t world_size = 1;
  int64_t start = 0;  // how many positions all ranks together have delivered before
  bool shuffle = false;
  bool drop_last = false;  // only whole batches
  bool blocks = false;     // each rank has a block of each batch; it cannot be padded
  bool pad = false;        // every rank gets equally many samples: the first samples fill up the sequence
};

class GRADRING_API Order {
 public:
  Order() noexcept : Order(OrderOptions{}) {}
  explicit Order(const OrderOptions& options) noexcept;
  static Status check(const OrderOptions& options) noexcept;

  const OrderOptions& options() const noexcept { return options_; }
  // How many batches this rank gets, from `start` on. With blocks, its part of the last one may be empty.
  int64_t batches() const noexcept;
  int64_t rows(int64_t batch) const noexcept;
  // The position of the batch's first row in the epoch's sequence.
  int64_t position(int64_t batch) const noexcept;
  // With blocks: the rows of a batch of all ranks together, of which this rank has a block.
  int64_t whole_rows(int64_t batch) const noexcept;
  // The `start` with which to resume after every rank has delivered this many batches.
  int64_t start_after(int64_t batches) const noexcept;
  // Sets out[i] to the sample of row first + i.
  void samples(int64_t batch, int64_t first, int64_t count, int64_t* out) const noexcept;

 private:
  OrderOptions options_;
  Permutation permutation_;
  int64_t rows_ = 0;
};

}  // namespace gradring
