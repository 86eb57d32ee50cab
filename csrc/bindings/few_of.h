// An array on the stack that constructs only the elements that are used.
#pragma once

#include <cstddef>
#include <new>

namespace gradring {

// Has room for kMost values and constructs the first `count`, so that a call does not pay for operands that its op lacks.
template <class T, int kMost>
class FewOf {
 public:
  explicit FewOf(size_t count) noexcept : count_(count) {
    for (size_t i = 0; i < count_; ++i) new (at(i)) T();
  }
  ~FewOf() {
    for (size_t i = 0; i < count_; ++i) at(i)->~T();
  }
  FewOf(const FewOf&) = delete;
  FewOf& operator=(const FewOf&) = delete;

  T& operator[](int i) noexcept { return *at(static_cast<size_t>(i)); }
  const T& operator[](int i) const noexcept { return *at(static_cast<size_t>(i)); }
  const T* data() const noexcept { return at(0); }

 private:
  T* at(size_t i) noexcept { return std::launder(reinterpret_cast<T*>(memory_ + i * sizeof(T))); }
  const T* at(size_t i) const noexcept { return std::launder(reinterpret_cast<const T*>(memory_ + i * sizeof(T))); }

  size_t count_;
  alignas(T) std::byte memory_[sizeof(T) * static_cast<size_t>(kMost)];
};

}  // namespace gradring
