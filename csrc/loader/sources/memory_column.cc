#include "loader/sources/memory_column.h"

#include <cstring>
#include <string>

namespace gradring {

namespace {

// One axis at a time, the innermost as a run of fixed-size elements.
template <class Word>
std::byte* copy_axis(const int64_t* shape, const int64_t* strides, size_t axes, const std::byte* from,
                     std::byte* to) noexcept {
  if (axes == 0) {
    std::memcpy(to, from, sizeof(Word));
    return to + sizeof(Word);
  }
  if (axes == 1) {
    for (int64_t i = 0; i < shape[0]; ++i, to += sizeof(Word)) std::memcpy(to, from + i * strides[0], sizeof(Word));
    return to;
  }
  for (int64_t i = 0; i < shape[0]; ++i) {
    to = copy_axis<Word>(shape + 1, strides + 1, axes - 1, from + i * strides[0], to);
  }
  return to;
}

template <class Word, class Swap>
void swap_words(std::byte* data, int64_t elements, Swap swap) noexcept {
  for (int64_t i = 0; i < elements; ++i) {
    std::byte* place = data + i * static_cast<int64_t>(sizeof(Word));
    Word word;
    std::memcpy(&word, place, sizeof word);
    word = swap(word);
    std::memcpy(place, &word, sizeof word);
  }
}

}  // namespace

bool contiguous_row(const FieldSpec& spec, const int64_t* row_strides) noexcept {
  auto expected = static_cast<int64_t>(size_of(spec.dtype));
  if (spec.elements() <= 1) return true;
  for (size_t axis = spec.shape.size(); axis-- > 0;) {
    if (spec.shape[axis] != 1 && row_strides[axis] != expected) return false;
    expected *= spec.shape[axis];
  }
  return true;
}

void copy_strided_row(const FieldSpec& spec, const std::byte* from, const int64_t* row_strides,
                      std::byte* to) noexcept {
  const int64_t* shape = spec.shape.data();
  switch (size_of(spec.dtype)) {
    case 1: copy_axis<uint8_t>(shape, row_strides, spec.shape.size(), from, to); break;
    case 2: copy_axis<uint16_t>(shape, row_strides, spec.shape.size(), from, to); break;
    case 4: copy_axis<uint32_t>(shape, row_strides, spec.shape.size(), from, to); break;
    default: copy_axis<uint64_t>(shape, row_strides, spec.shape.size(), from, to); break;
  }
}

void swap_bytes(Dtype dtype, std::byte* data, int64_t elements) noexcept {
  switch (size_of(dtype)) {
    case 2: return swap_words<uint16_t>(data, elements, [](uint16_t x) { return __builtin_bswap16(x); });
    case 4: return swap_words<uint32_t>(data, elements, [](uint32_t x) { return __builtin_bswap32(x); });
    case 8: return swap_words<uint64_t>(data, elements, [](uint64_t x) { return __builtin_bswap64(x); });
    default: return;
  }
}

MemoryColumn::MemoryColumn(FieldSpec spec, int64_t length, ArrayLayout layout, std::shared_ptr<const void> owner)
    : Column(std::move(spec), length), layout_(std::move(layout)), owner_(std::move(owner)) {
  if (layout_.strides.size() != this->spec().shape.size() + 1) {
    throw Error(Code::kInternal, "[loader] field '" + this->spec().name + "' has too many or too few strides");
  }
  plain_ =
      contiguous_row(this->spec(), layout_.strides.data() + 1) && !(layout_.swapped && size_of(this->spec().dtype) > 1);
}

bool MemoryColumn::begin(const int64_t*, int64_t, RowAddresses* where) const noexcept {
  if (plain_) *where = {layout_.data, layout_.strides[0]};
  return plain_;
}

Status MemoryColumn::read(const int64_t* samples, int64_t rows, std::byte* to, int64_t*) const noexcept {
  const int64_t* row_strides = layout_.strides.data() + 1;
  const size_t row_bytes = spec().row_bytes();
  for (int64_t row = 0; row < rows; ++row, to += row_bytes) {
    copy_strided_row(spec(), layout_.data + samples[row] * layout_.strides[0], row_strides, to);
    if (layout_.swapped) swap_bytes(spec().dtype, to, spec().elements());
  }
  return {};
}

}  // namespace gradring
