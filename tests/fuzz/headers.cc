// libFuzzer: any bytes at all are either a header that fits the file, or refused. Built and run by scripts/fuzz.sh.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "loader/sources/array_header.h"

namespace {

using Parser = gradring::Status (*)(const std::byte*, size_t, int64_t, const char*, gradring::ArrayHeader*);

void require(bool condition) {
  if (!condition) std::abort();
}

void check(Parser parse, const uint8_t* data, size_t size, int64_t file_bytes) {
  gradring::ArrayHeader header;
  const gradring::Status status = parse(reinterpret_cast<const std::byte*>(data), size, file_bytes, "f", &header);
  if (!status.ok()) {
    require(std::string(status.message()).rfind("[loader] f ", 0) == 0);
    return;
  }
#ifdef PLANTED_ERROR
  header.record_bytes = INT64_MAX;  // scripts/fuzz.sh: this must be noticed
#endif
  require(!header.fields.empty() && header.record_bytes > 0);
  require(header.data_offset >= 0 && header.data_offset <= static_cast<int64_t>(size));
  // A header that the parser accepts describes only bytes that lie within the file.
  int64_t bytes = header.record_bytes;
  for (int64_t extent : header.shape) {
    require(extent >= 0);
    require(!__builtin_mul_overflow(bytes, extent, &bytes));
  }
  require(bytes <= file_bytes - header.data_offset);
  for (const auto& field : header.fields) {
    int64_t field_bytes = static_cast<int64_t>(gradring::size_of(field.dtype));
    for (int64_t extent : field.shape)
      require(extent >= 0 && !__builtin_mul_overflow(field_bytes, extent, &field_bytes));
    require(field.offset >= 0 && field.offset + field_bytes <= header.record_bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = static_cast<int64_t>(size);
  for (int64_t file_bytes : {bytes, bytes + 4096, INT64_MAX}) {
    check(gradring::parse_npy_header, data, size, file_bytes);
    check(gradring::parse_idx_header, data, size, file_bytes);
  }
  return 0;
}
