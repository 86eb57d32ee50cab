// FileColumn: the rows of an array in a file (.npy, IDX, raw records). They are read from the page cache without a copy.
//
// | variable | writer    | readers | order   | why                                                    |
// |----------|-----------|---------|---------|--------------------------------------------------------|
// | cold_    | begin/end | begin   | relaxed | a guess about the page cache; losing an update is fine |
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "gradring/export.h"
#include "loader/column.h"
#include "loader/sources/mapped_file.h"

namespace gradring {

// How an array lies in a file.
struct FileLayout {
  int64_t offset = 0;            // where the first element of sample 0 lies in the file
  std::vector<int64_t> strides;  // in bytes, none negative: of the sample axis and then of each axis of a row
  bool swapped = false;          // whether the byte order is not this machine's
};

class GRADRING_API FileColumn final : public Column {
 public:
  // Throws Error if the array does not lie within the file.
  FileColumn(FieldSpec spec, int64_t length, FileLayout layout, std::shared_ptr<const MappedFile> file);

  bool begin(const int64_t* samples, int64_t rows, RowAddresses* where) const noexcept override;
  Status end(const int64_t* samples, int64_t rows, int64_t* failed_row) const noexcept override;
  Status read(const int64_t* samples, int64_t rows, std::byte* to, int64_t* failed_row) const noexcept override;
  void will_read(const int64_t* samples, int64_t rows) const noexcept override;

 private:
  int64_t offset_of(int64_t sample) const noexcept { return layout_.offset + sample * layout_.strides[0]; }
  bool enter(const int64_t* samples, int64_t rows) const noexcept;
  void fetch(const int64_t* samples, int64_t rows) const noexcept;
  Status check(const int64_t* samples, int64_t rows, int64_t* failed_row) const noexcept;
  Status pread_axis(size_t axis, int64_t offset, std::byte** to) const noexcept;

  FileLayout layout_;
  std::shared_ptr<const MappedFile> file_;
  bool plain_;         // a row is one run of bytes in this machine's byte order
  int64_t row_reach_;  // the distance from a row's first byte to the end of its last element
  mutable std::atomic<int> cold_;
};

}  // namespace gradring
