// Column: one field of a source whose rows lie in memory or in a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "gradring/export.h"
#include "loader/source.h"

namespace gradring {

// Row s lies at base + s * stride.
struct RowAddresses {
  const std::byte* base = nullptr;
  int64_t stride = 0;
};

class GRADRING_API Column {
 public:
  Column(FieldSpec spec, int64_t length) : spec_(std::move(spec)), length_(length) {}
  virtual ~Column() = default;

  const FieldSpec& spec() const noexcept { return spec_; }
  int64_t length() const noexcept { return length_; }

  // Returns true if these rows can be read where they lie until the same thread calls end. Returns false if the caller must use
  // read instead.
  virtual bool begin(const int64_t* samples, int64_t rows, RowAddresses* where) const noexcept {
    (void)samples, (void)rows, (void)where;
    return false;
  }
  // Says whether everything that was read since begin was really there.
  virtual Status end(const int64_t* samples, int64_t rows, int64_t* failed_row) const noexcept {
    (void)samples, (void)rows, (void)failed_row;
    return {};
  }
  // Writes the rows one after the other.
  virtual Status read(const int64_t* samples, int64_t rows, std::byte* to, int64_t* failed_row) const noexcept = 0;
  // Source::hint for this column.
  virtual void will_read(const int64_t* samples, int64_t rows) const noexcept { (void)samples, (void)rows; }

 private:
  FieldSpec spec_;
  int64_t length_;
};

}  // namespace gradring
