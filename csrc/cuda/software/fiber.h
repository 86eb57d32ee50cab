// A stack of its own for each GPU thread. Switching saves the registers that the System V ABI says a call keeps. Nothing
// here is per thread of the operating system: any thread that holds the device's lock may go on with any fiber.
#pragma once

#include <cstddef>

namespace gradring::software {

inline constexpr size_t kStackBytes = 128 << 10;

// Where to go on: a fiber, or the scheduler that runs fibers.
struct Context {
  void* stack_pointer = nullptr;
  void* identity = nullptr;            // for ThreadSanitizer
  void* fake_stack = nullptr;          // for AddressSanitizer
  const void* stack_bottom = nullptr;  // likewise
  size_t stack_bytes = 0;
};

// The pool's stacks have an inaccessible page below them.
char* take_stack();
void return_stack(char* stack);

// Makes `context` begin with `entry`, which must never return, at the top of `stack`.
void prepare(Context* context, char* stack, void (*entry)());

// Goes from one to the other. last: `from` never goes on.
void switch_context(Context* from, Context* to, bool last);

// What `entry` calls first.
void finish_first_switch();

}  // namespace gradring::software
