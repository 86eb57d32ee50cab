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
  std::vector<HeaderField> fields;  // of the file, in order
  std::vector<std::shared_ptr<const Column>> columns;
  bool structured = false;
};

// name: of the field of a file of plain elements. Throw Error: no such file, a damaged or truncated one, object dtype, an array without an axis.
GRADRING_API FileArray open_npy(const std::string& path, const std::string& name);
GRADRING_API FileArray open_idx(const std::string& path, const std::string& name);
// Fixed-size records without a header: as many as fit after `offset`; a rest is refused.
GRADRING_API FileArray open_raw(const std::string& path, std::vector<HeaderField> fields, int64_t record_bytes,
                                int64_t offset);

}  // namespace gradring
