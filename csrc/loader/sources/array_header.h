// The headers of .npy and IDX files. They come from anywhere, so nothing in them is believed: sizes are checked against
// the file before anything is allocated, nothing is evaluated or unpickled. Fuzzed from tests/fuzz.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "gradring/export.h"
#include "runtime/dtype.h"
#include "runtime/status.h"

namespace gradring {

// One field of a record; a file of plain elements has one without a name.
struct HeaderField {
  std::string name;
  std::string descr;            // NumPy's type string without the shape: "<f4", ">M8[ns]", "|S10"
  Dtype dtype = Dtype::kUint8;  // a type that Dtype lacks is kUint8 with its bytes as a last axis, and opaque
  bool opaque = false;
  bool swapped = false;        // the other byte order than this machine's
  std::vector<int64_t> shape;  // of one element of the array: of a subarray, or empty
  int64_t offset = 0;          // in the record
};

struct ArrayHeader {
  std::vector<HeaderField> fields;
  std::vector<int64_t> shape;  // the first axis is the samples
  int64_t record_bytes = 0;
  bool structured = false;
  bool fortran_order = false;
  int64_t data_offset = 0;
};

// No header is longer (NumPy's own writer stays far below).
inline constexpr size_t kLongestHeader = size_t{1} << 20;

// data: the first min(file_bytes, kLongestHeader) bytes of the file. path is for messages.
// .npy versions 1 to 3 (NumPy Enhancement Proposal 1 and numpy.lib.format).
GRADRING_API Status parse_npy_header(const std::byte* data, size_t bytes, int64_t file_bytes, const char* path,
                                     ArrayHeader* header);
// IDX (Yann LeCun's MNIST page, "the IDX file format").
GRADRING_API Status parse_idx_header(const std::byte* data, size_t bytes, int64_t file_bytes, const char* path,
                                     ArrayHeader* header);

}  // namespace gradring
