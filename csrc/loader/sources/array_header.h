// Parsers of the headers of .npy and IDX files. Files may come from anywhere, so the parsers trust nothing in them: they check
// sizes against the file before they allocate anything, and they never evaluate or unpickle. tests/fuzz fuzzes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/dtype.h"
#include "runtime/status.h"

namespace gradring {

// One field of a record; a file of plain elements has one without a name.
struct HeaderField {
  std::string name;
  std::string descr;            // NumPy's type string without the shape: "<f4", ">M8[ns]", "|S10"
  Dtype dtype = Dtype::kUint8;  // a type without a Dtype is opaque: kUint8, its bytes being a last axis
  bool opaque = false;
  bool swapped = false;        // whether the byte order is not this machine's
  std::vector<int64_t> shape;  // the shape of a subarray, which is one element of the array; else empty
  int64_t offset = 0;          // where the field begins in the record
};

struct ArrayHeader {
  std::vector<HeaderField> fields;
  std::vector<int64_t> shape;  // the first axis is the samples
  int64_t record_bytes = 0;
  bool structured = false;
  bool fortran_order = false;
  int64_t data_offset = 0;
};

// Longer headers are refused. (Those that NumPy writes are far shorter.)
inline constexpr size_t kLongestHeader = size_t{1} << 20;

// Parses .npy versions 1 to 3 (NumPy Enhancement Proposal 1 and numpy.lib.format). `data` holds the first
// min(file_bytes, kLongestHeader) bytes of the file, and `path` is for messages.
Status parse_npy_header(const std::byte* data, size_t bytes, int64_t file_bytes, const char* path, ArrayHeader* header);
// Parses the header of an IDX file (Yann LeCun's MNIST page, "the IDX file format"), with the same arguments.
Status parse_idx_header(const std::byte* data, size_t bytes, int64_t file_bytes, const char* path, ArrayHeader* header);

}  // namespace gradring
