#include "loader/sources/file_column.h"

#include <sys/resource.h>

#include <algorithm>
#include <string>

#include "loader/sources/memory_column.h"

namespace gradring {

namespace {

// How many rows are announced to the system before they are read, after a read had to wait for the disk.
constexpr int kColdRows = 2048;

thread_local long faults_at_begin = 0;

// How many page faults of this thread have waited for the disk.
long major_faults() noexcept {
  struct rusage usage;
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_majflt : 0;
}

// The distance from an array's first byte to the end of its last one, or -1 if that overflows.
int64_t reach_of(const int64_t* shape, const int64_t* strides, size_t axes, int64_t element) noexcept {
  int64_t reach = element;
  for (size_t axis = 0; axis < axes; ++axis) {
    int64_t span;
    if (shape[axis] == 0) return 0;
    if (strides[axis] < 0 || __builtin_mul_overflow(shape[axis] - 1, strides[axis], &span) ||
        __builtin_add_overflow(reach, span, &reach)) {
      return -1;
    }
  }
  return reach;
}

}  // namespace

FileColumn::FileColumn(FieldSpec spec, int64_t length, FileLayout layout, std::shared_ptr<const MappedFile> file)
    : Column(std::move(spec), length), layout_(std::move(layout)), file_(std::move(file)), cold_(kColdRows) {
  const FieldSpec& row = this->spec();
  if (layout_.strides.size() != row.shape.size() + 1) {
    throw Error(Code::kInternal, "[loader] field '" + row.name + "' has too many or too few strides");
  }
  std::vector<int64_t> shape = {length};
  shape.insert(shape.end(), row.shape.begin(), row.shape.end());
  const auto element = static_cast<int64_t>(size_of(row.dtype));
  row_reach_ = reach_of(shape.data() + 1, layout_.strides.data() + 1, row.shape.size(), element);
  const int64_t reach = reach_of(shape.data(), layout_.strides.data(), shape.size(), element);
  int64_t end;
  if (length < 0 || layout_.offset < 0 || row_reach_ < 0 || reach < 0 ||
      __builtin_add_overflow(layout_.offset, reach, &end) || end > file_->size()) {
    throw Error(Code::kInvalidArgument, "[loader] " + file_->path() + " is truncated: it has " +
                                            std::to_string(file_->size()) + " bytes, and field '" + row.name +
                                            "' would end beyond them");
  }
  plain_ = contiguous_row(row, layout_.strides.data() + 1) && !(layout_.swapped && element > 1);
}

bool FileColumn::enter(const int64_t* samples, int64_t rows) const noexcept {
  if (!file_->enter()) return false;
  const int cold = cold_.load(std::memory_order_relaxed);
  if (cold > 0) {
    fetch(samples, rows);
    cold_.store(cold - static_cast<int>(std::min<int64_t>(rows, cold)), std::memory_order_relaxed);
  }
  faults_at_begin = major_faults();
  return true;
}

bool FileColumn::begin(const int64_t* samples, int64_t rows, RowAddresses* where) const noexcept {
  if (!plain_ || !enter(samples, rows)) return false;
  *where = {file_->data() + layout_.offset, layout_.strides[0]};
  return true;
}

Status FileColumn::end(const int64_t* samples, int64_t rows, int64_t* failed_row) const noexcept {
  file_->leave();
  if (major_faults() != faults_at_begin) cold_.store(kColdRows, std::memory_order_relaxed);
  return check(samples, rows, failed_row);
}

Status FileColumn::check(const int64_t* samples, int64_t rows, int64_t* failed_row) const noexcept {
  const int64_t intact = file_->intact();
  if (intact == file_->size()) return {};
  for (int64_t row = 0; row < rows; ++row) {
    if (offset_of(samples[row]) + row_reach_ > intact) {
      *failed_row = row;
      return file_->cut_short(std::max(intact, offset_of(samples[row])));
    }
  }
  return {};
}

Status FileColumn::read(const int64_t* samples, int64_t rows, std::byte* to, int64_t* failed_row) const noexcept {
  const size_t row_bytes = spec().row_bytes();
  const bool mapped = enter(samples, rows);
  std::byte* row_to = to;
  for (int64_t row = 0; row < rows; ++row, row_to += row_bytes) {
    if (mapped) {
      copy_strided_row(spec(), file_->data() + offset_of(samples[row]), layout_.strides.data() + 1, row_to);
    } else {
      std::byte* place = row_to;
      Status status = plain_ ? file_->pread(offset_of(samples[row]), row_bytes, place)
                             : pread_axis(0, offset_of(samples[row]), &place);
      if (!status.ok()) {
        *failed_row = row;
        return status;
      }
    }
    if (layout_.swapped) swap_bytes(spec().dtype, row_to, spec().elements());
  }
  return mapped ? end(samples, rows, failed_row) : Status{};
}

// Reads a row element by element. This is only needed for odd strides in a file that cannot be mapped.
Status FileColumn::pread_axis(size_t axis, int64_t offset, std::byte** to) const noexcept {
  if (axis == spec().shape.size()) {
    const size_t element = size_of(spec().dtype);
    Status status = file_->pread(offset, element, *to);
    *to += element;
    return status;
  }
  for (int64_t i = 0; i < spec().shape[axis]; ++i) {
    Status status = pread_axis(axis + 1, offset + i * layout_.strides[axis + 1], to);
    if (!status.ok()) return status;
  }
  return {};
}

void FileColumn::will_read(const int64_t* samples, int64_t rows) const noexcept {
  if (cold_.load(std::memory_order_relaxed) > 0) fetch(samples, rows);
}

void FileColumn::fetch(const int64_t* samples, int64_t rows) const noexcept {
  for (int64_t row = 0; row < rows;) {
    int64_t next = row + 1;
    while (next < rows && samples[next] == samples[next - 1] + 1) ++next;
    // The rows are one run of bytes. For these, the system's own read-ahead was measured to be faster than announcements.
    if (row == 0 && next == rows && rows > 1) return;
    file_->will_read(offset_of(samples[row]), (next - row - 1) * layout_.strides[0] + row_reach_);
    row = next;
  }
}

}  // namespace gradring
