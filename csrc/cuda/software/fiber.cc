#include "cuda/software/fiber.h"

#include <sys/mman.h>

#include <vector>

#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

#if !defined(__x86_64__)
#error "the software device switches stacks on x86-64 alone"
#endif

extern "C" void gradring_switch_stack(void** from, void* to);
asm(R"(
.text
.type gradring_switch_stack,@function
gradring_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gradring_switch_stack, .-gradring_switch_stack
)");

namespace gradring::software {

namespace {
constexpr size_t kGuard = 4096;
std::vector<char*> unused_stacks;
[[maybe_unused]] Context* came_from = nullptr;
}  // namespace

char* take_stack() {
  if (!unused_stacks.empty()) {
    char* stack = unused_stacks.back();
    unused_stacks.pop_back();
    allow_bytes(stack, kStackBytes);
    return stack;
  }
  void* mapped =
      mmap(nullptr, kGuard + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) fail("no memory for the stack of another GPU thread");
  mprotect(mapped, kGuard, PROT_NONE);
  return static_cast<char*>(mapped) + kGuard;
}

void return_stack(char* stack) {
  // Give the next thread new pages: the race detector must not compare two threads that used the same stack one after
  // the other.
  if (kThreadSanitizer) {
    munmap(stack - kGuard, kGuard + kStackBytes);
  } else {
    unused_stacks.push_back(stack);
  }
}

void prepare(Context* context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // a null return address for entry, which aligns the stack as a call does
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  context->stack_pointer = top;
  context->fake_stack = nullptr;
  context->stack_bottom = stack;
  context->stack_bytes = kStackBytes;
}

GRADRING_UNSANITIZED void switch_context(Context* from, Context* to, [[maybe_unused]] bool last) {
  came_from = from;
  take_identity(to->identity);
#if defined(GRADRING_SOFTWARE_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &from->fake_stack, to->stack_bottom, to->stack_bytes);
#endif
  gradring_switch_stack(&from->stack_pointer, to->stack_pointer);
#if defined(GRADRING_SOFTWARE_ASAN)
  __sanitizer_finish_switch_fiber(from->fake_stack, &came_from->stack_bottom, &came_from->stack_bytes);
#endif
}

GRADRING_UNSANITIZED void finish_first_switch() {
#if defined(GRADRING_SOFTWARE_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &came_from->stack_bottom, &came_from->stack_bytes);
#endif
}

}  // namespace gradring::software
