// combine: reduces several arrays element by element, in the arrays' order, into one or several arrays.
//
// This is the arithmetic of every reducing collective: the inputs are the ranks' arrays, in rank order, and each
// element's value depends on the inputs at that place alone, and not on the slice, the vector width or the tail.
#pragma once

#include <cstdint>

#include "ops/combine/element.h"

namespace gradring {

struct CombineArguments {
  int inputs = 0;   // at least 1
  int outputs = 0;  // at least 1; an output may be an input, at the same place
  const void* const* in = nullptr;
  void* const* out = nullptr;  // like the inputs, contiguous and of any alignment
  int64_t count = 0;
  double divisor = 1;  // kMean divides the sum by it, once
  // For two inputs and one output: combine copies each element of `next` to `room`, which is one of the inputs, soon
  // after it has read the element there. Neither `next` nor `room` overlaps the output.
  const void* next = nullptr;
  void* room = nullptr;
};

using Combine = void (*)(const CombineArguments&) noexcept;

// Returns the kernel of the active ISA level; null where can_reduce is false.
Combine find_combine(Element element, Reduction reduction) noexcept;

}  // namespace gradring
