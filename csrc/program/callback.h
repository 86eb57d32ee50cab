// Callbacks: an instruction that calls out of the program, such as into Python for nn.Function.
#pragma once

#include <cstdint>

namespace gradring {

// Called by lane 0 while the other lanes wait. memory: the operands' addresses, in order, null where absent. Returns
// false to end the step with Fault::kCallback; whoever set the callback knows why.
struct Callback {
  bool (*function)(void* context, void* const* memory, int count) noexcept;
  void* context;
};

}  // namespace gradring
