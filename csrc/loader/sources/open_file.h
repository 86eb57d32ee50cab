// Opens files of arrays as columns.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gradring/export.h"
#include "loader/column.h"
#include "loader/sources/array_header.h"

namespace gradring {

struct FileArray {
  std::vector<HeaderField> fields;  // the fields of the file, in order
  std::vector<std::shared_ptr<const Column>> columns;
  bool structured = false;
};

// `name` names the field of a file of plain elements. These throw Error if the file cannot be opened, is damaged or truncated,
// holds Python objects, or holds an array without an axis.
GRADRING_API FileArray open_npy(const std::string& path, const std::string& name);
GRADRING_API FileArray open_idx(const std::string& path, const std::string& name);
// Opens a file of fixed-size records without a header. The bytes after `offset` must be a whole number of records.
GRADRING_API FileArray open_raw(const std::string& path, std::vector<HeaderField> fields, int64_t record_bytes,
                                int64_t offset);

}  // namespace gradring
