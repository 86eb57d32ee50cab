#include "comm/operand.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace gradring {

CommOperand::CommOperand(void* data, int axes, const int64_t* sizes, const int64_t* strides, size_t element_bytes)
    : data_(static_cast<std::byte*>(data)), elements_(1), element_bytes_(element_bytes) {
  for (int i = 0; i < axes; ++i) elements_ *= sizes[i];
  if (elements_ <= 1) return;
  for (int i = 0; i < axes; ++i) {
    if (sizes[i] == 1) continue;
    if (!axes_.empty() && axes_.back().stride == sizes[i] * strides[i]) {
      axes_.back() = {axes_.back().size * sizes[i], strides[i]};
    } else {
      axes_.push_back({sizes[i], strides[i]});
    }
  }
  if (axes_.size() == 1 && axes_[0].stride == static_cast<int64_t>(element_bytes)) axes_.clear();
}

// Calls move(address, elements, stride) for each piece of the innermost axis in [first, first + count).
template <class Move>
void CommOperand::walk(int64_t first, int64_t count, Move&& move) const noexcept {
  if (axes_.empty()) return move(data_ + static_cast<size_t>(first) * element_bytes_, count, element_bytes_);
  const Axis inner = axes_.back();
  while (count > 0) {
    int64_t rest = first / inner.size;
    const int64_t within = first % inner.size;
    int64_t offset = within * inner.stride;
    for (size_t axis = axes_.size() - 1; axis-- > 0;) {
      offset += rest % axes_[axis].size * axes_[axis].stride;
      rest /= axes_[axis].size;
    }
    const int64_t piece = std::min(count, inner.size - within);
    move(data_ + offset, piece, inner.stride);
    first += piece;
    count -= piece;
  }
}

namespace {

template <class T>
void copy_strided(std::byte* to, int64_t to_stride, const std::byte* from, int64_t from_stride,
                  int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(to, from, sizeof(T));
    to += to_stride;
    from += from_stride;
  }
}

void copy(std::byte* to, int64_t to_stride, const std::byte* from, int64_t from_stride, int64_t count,
          size_t bytes) noexcept {
  const auto dense = static_cast<int64_t>(bytes);
  if (to_stride == dense && from_stride == dense) {
    std::memcpy(to, from, static_cast<size_t>(count) * bytes);
    return;
  }
  switch (bytes) {
    case 1: return copy_strided<uint8_t>(to, to_stride, from, from_stride, count);
    case 2: return copy_strided<uint16_t>(to, to_stride, from, from_stride, count);
    case 4: return copy_strided<uint32_t>(to, to_stride, from, from_stride, count);
    default: return copy_strided<uint64_t>(to, to_stride, from, from_stride, count);
  }
}

}  // namespace

void CommOperand::gather(int64_t first, int64_t count, std::byte* to) const noexcept {
  if (count <= 0) return;
  walk(first, count, [&](const std::byte* from, int64_t piece, int64_t stride) noexcept {
    copy(to, static_cast<int64_t>(element_bytes_), from, stride, piece, element_bytes_);
    to += static_cast<size_t>(piece) * element_bytes_;
  });
}

void CommOperand::scatter(int64_t first, int64_t count, const std::byte* from) const noexcept {
  if (count <= 0) return;
  walk(first, count, [&](std::byte* to, int64_t piece, int64_t stride) noexcept {
    copy(to, stride, from, static_cast<int64_t>(element_bytes_), piece, element_bytes_);
    from += static_cast<size_t>(piece) * element_bytes_;
  });
}

void CommOperand::copy_from(const CommOperand& other) const noexcept {
  if (elements_ == 0 || (data_ == other.data_ && axes_.size() == other.axes_.size() && contiguous())) return;
  if (contiguous()) return other.gather(0, elements_, data_);
  std::byte piece[4096];
  const auto most = static_cast<int64_t>(sizeof piece / element_bytes_);
  for (int64_t at = 0; at < elements_; at += most) {
    const int64_t count = std::min(most, elements_ - at);
    other.gather(at, count, piece);
    scatter(at, count, piece);
  }
}

CommOperand::Extent CommOperand::extent() const noexcept {
  auto begin = reinterpret_cast<uintptr_t>(data_);
  if (elements_ == 0) return {begin, begin};
  if (contiguous()) return {begin, begin + bytes()};
  uintptr_t end = begin + element_bytes_;
  for (const Axis& axis : axes_) {
    const int64_t reach = (axis.size - 1) * axis.stride;
    if (reach < 0) {
      begin -= static_cast<uintptr_t>(-reach);
    } else {
      end += static_cast<uintptr_t>(reach);
    }
  }
  return {begin, end};
}

bool CommOperand::overlaps_itself() const {
  std::vector<Axis> sorted = axes_;
  std::sort(sorted.begin(), sorted.end(), [](Axis a, Axis b) { return std::llabs(a.stride) < std::llabs(b.stride); });
  int64_t covered = static_cast<int64_t>(element_bytes_);
  for (const Axis& axis : sorted) {
    if (std::llabs(axis.stride) < covered) return true;
    covered += (axis.size - 1) * std::llabs(axis.stride);
  }
  return false;
}

}  // namespace gradring
