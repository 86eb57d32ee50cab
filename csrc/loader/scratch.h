// Scratch memory for reading a source. It is aligned as ReadRequest demands, and comes from the heap, so that a sanitizer notices
// accesses beyond its end.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace gradring {

class Scratch {
 public:
  explicit Scratch(size_t bytes) : memory_(static_cast<std::byte*>(::operator new(bytes, kAlignment))) {}
  std::byte* data() const noexcept { return memory_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(std::byte* memory) const noexcept { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<std::byte, Delete> memory_;
};

}  // namespace gradring
