// Many arrays that one launch updates: a table in device memory, with a row for each parameter. No CUDA header is needed.
//
// A launch works on parts of kPartElements elements, so that a block finds its work by one number, and large and small arrays
// share the device evenly.
#pragma once

#include <cstdint>

#include "ops/step_record.h"

namespace gradring {

inline constexpr int64_t kPartElements = 4096;  // the same as kNormBlock, so that norms have the bits of sum_of_squares

// The arrays of one parameter. `state` has those of the optimizer's rule, in the order of its kernel.
struct CudaSpan {
  void* param = nullptr;
  const void* grad = nullptr;
  void* state[3] = {};
  int64_t n = 0;
};

struct CudaPart {
  int64_t span = 0;   // an index into the spans
  int64_t first = 0;  // the first element
};

struct CudaSpans {
  const CudaSpan* spans = nullptr;  // device memory, like the parts
  const CudaPart* parts = nullptr;
  int64_t part_count = 0;
  StepRecord* step = nullptr;  // device memory; a fault there stops the launch
  // Whether the learning rate number `rate`, the update's number, the clipping factor and the weight are those of the record;
  // else lr and scale count.
  bool by_record = true;
  int64_t rate = 0;
  double lr = 0, scale = 1;
};

}  // namespace gradring
