// Fibers: each GPU thread has a stack of its own. A switch saves the registers that a call keeps according to the
// System V ABI. Nothing here belongs to a thread of the operating system: any thread that holds the device's lock may
// run any fiber.
#pragma once

#include <cstddef>

namespace gradring::software {

inline constexpr size_t kStackBytes = 128 << 10;

// Where a fiber, or the scheduler that runs fibers, continues.
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

// Makes `context` begin with a call of `entry`, which must never return, at the top of `stack`.
void prepare(Context* context, char* stack, void (*entry)());

// Switches from one to the other. With `last`, `from` never runs again.
void switch_context(Context* from, Context* to, bool last);

// `entry` must call this first.
void finish_first_switch();

}  // namespace gradring::software
