#include "loader/transforms/stages.h"

#include <cstring>

#include "ops/cast/any_cast.h"

namespace gradring {

OneHotStage::OneHotStage(const FieldSpec& spec, int64_t classes, Dtype dtype)
    : to_int64_(find_any_cast(Dtype::kInt64, spec.dtype)),
      signed_(spec.dtype != Dtype::kUint64),
      label_bytes_(size_of(spec.dtype)),
      labels_(spec.elements()),
      classes_(classes),
      element_bytes_(size_of(dtype)) {
  const int64_t one = 1;
  find_any_cast(dtype, Dtype::kInt64)(one_, &one, 1);
}

Status OneHotStage::run(const std::byte* from, std::byte* to, const RowKey&, std::byte*) const noexcept {
  const size_t row = static_cast<size_t>(classes_) * element_bytes_;
  std::memset(to, 0, row * static_cast<size_t>(labels_));
  for (int64_t i = 0; i < labels_; ++i, from += label_bytes_, to += row) {
    int64_t label;
    to_int64_(&label, from, 1);
    // A uint64 beyond int64 has become a negative number here, and is refused with those.
    if (label < 0 || label >= classes_) {
      return {Code::kOutOfRange,
              signed_ ? "[loader] OneHot: label %lld is not in [0, %lld)"
                      : "[loader] OneHot: label %llu is not in [0, %lld)",
              static_cast<long long>(label), static_cast<long long>(classes_)};
    }
    std::memcpy(to + static_cast<size_t>(label) * element_bytes_, one_, element_bytes_);
  }
  return {};
}

}  // namespace gradring
