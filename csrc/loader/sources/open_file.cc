#include "loader/sources/open_file.h"

#include <algorithm>

#include "loader/sources/file_column.h"

namespace gradring {

namespace {

std::vector<int64_t> strides_of(const ArrayHeader& header) {
  std::vector<int64_t> strides(header.shape.size());
  int64_t step = header.record_bytes;
  for (size_t i = 0; i < strides.size(); ++i) {
    const size_t axis = header.fortran_order ? i : strides.size() - 1 - i;
    strides[axis] = step;
    if (__builtin_mul_overflow(step, header.shape[axis], &step)) step = 0;  // only if another axis has length 0
  }
  return strides;
}

FileArray columns_of(const ArrayHeader& header, const std::shared_ptr<const MappedFile>& file) {
  if (header.shape.empty()) {
    throw Error(Code::kInvalidArgument, "[loader] " + file->path() + " holds a single value, not an axis of samples");
  }
  const std::vector<int64_t> strides = strides_of(header);
  FileArray array{header.fields, {}, header.structured};
  for (const HeaderField& field : header.fields) {
    FieldSpec spec{field.name, field.dtype, {header.shape.begin() + 1, header.shape.end()}};
    FileLayout layout{header.data_offset + field.offset, strides, field.swapped};
    spec.shape.insert(spec.shape.end(), field.shape.begin(), field.shape.end());
    int64_t step = static_cast<int64_t>(size_of(field.dtype));
    std::vector<int64_t> inner(field.shape.size());
    for (size_t axis = inner.size(); axis-- > 0; step *= field.shape[axis]) inner[axis] = step;
    layout.strides.insert(layout.strides.end(), inner.begin(), inner.end());
    array.columns.push_back(std::make_shared<FileColumn>(std::move(spec), header.shape[0], std::move(layout), file));
  }
  return array;
}

using Parser = Status (*)(const std::byte*, size_t, int64_t, const char*, ArrayHeader*);

FileArray open_with(const std::string& path, const std::string& name, Parser parse) {
  const auto file = std::make_shared<const MappedFile>(path);
  std::vector<std::byte> start(std::min(static_cast<size_t>(file->size()), kLongestHeader));
  throw_if(file->pread(0, start.size(), start.data()));
  ArrayHeader header;
  throw_if(parse(start.data(), start.size(), file->size(), path.c_str(), &header));
  if (!header.structured) header.fields[0].name = name;
  return columns_of(header, file);
}

}  // namespace

FileArray open_npy(const std::string& path, const std::string& name) { return open_with(path, name, parse_npy_header); }

FileArray open_idx(const std::string& path, const std::string& name) { return open_with(path, name, parse_idx_header); }

FileArray open_raw(const std::string& path, std::vector<HeaderField> fields, int64_t record_bytes, int64_t offset) {
  const auto file = std::make_shared<const MappedFile>(path);
  if (record_bytes < 1)
    throw Error(Code::kInvalidArgument, "[loader] records of " + path + " must have at least one byte");
  if (offset < 0 || offset > file->size()) {
    throw Error(Code::kInvalidArgument, "[loader] " + path + " has " + std::to_string(file->size()) +
                                            " bytes: it cannot begin at offset " + std::to_string(offset));
  }
  const int64_t bytes = file->size() - offset;
  if (bytes % record_bytes != 0) {
    throw Error(Code::kInvalidArgument, "[loader] " + path + " is truncated or foreign: " + std::to_string(bytes) +
                                            " bytes are not a whole number of records of " +
                                            std::to_string(record_bytes));
  }
  ArrayHeader header;
  header.fields = std::move(fields);
  header.shape = {bytes / record_bytes};
  header.record_bytes = record_bytes;
  header.data_offset = offset;
  return columns_of(header, file);
}

}  // namespace gradring
