#include <bit>
#include <cstring>
#include <limits>

#include "loader/sources/array_header.h"

namespace gradring {

namespace {

constexpr size_t kMaxAxes = 32;
constexpr size_t kMaxFields = 1024;
constexpr int64_t kMaxElementBytes = 1 << 20;

// Reads the header's Python literal: one dict of strings, booleans, tuples of integers and lists of tuples.
class Literal {
 public:
  Literal(const char* at, const char* end) : at_(at), end_(end) {}

  bool done() {
    skip();
    return at_ == end_;
  }
  bool take(char wanted) {
    skip();
    if (at_ == end_ || *at_ != wanted) return false;
    ++at_;
    return true;
  }
  bool next_is(char wanted) {
    skip();
    return at_ != end_ && *at_ == wanted;
  }
  bool word(const char* wanted) {
    skip();
    const size_t length = std::strlen(wanted);
    if (static_cast<size_t>(end_ - at_) < length || std::memcmp(at_, wanted, length) != 0) return false;
    at_ += length;
    return true;
  }
  bool text(std::string* out) {
    skip();
    if (at_ == end_ || (*at_ != '\'' && *at_ != '"')) return false;
    const char quote = *at_++;
    out->clear();
    while (at_ != end_ && *at_ != quote) {
      if (*at_ == '\\') return false;  // NumPy writes no backslash in a type, and names with one are rare: refuse it
      out->push_back(*at_++);
    }
    return take_raw(quote);
  }
  bool integer(int64_t* out) {
    skip();
    if (at_ == end_ || *at_ < '0' || *at_ > '9') return false;
    int64_t value = 0;
    for (; at_ != end_ && *at_ >= '0' && *at_ <= '9'; ++at_) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *at_ - '0', &value)) return false;
    }
    take_raw('L');  // Python 2 wrote this suffix
    *out = value;
    return true;
  }
  // Reads a tuple such as (), (3,) or (3, 4).
  bool integers(std::vector<int64_t>* out) {
    out->clear();
    if (!take('(')) return false;
    while (!take(')')) {
      int64_t value;
      if (out->size() == kMaxAxes || !integer(&value)) return false;
      out->push_back(value);
      if (!take(',') && !next_is(')')) return false;
    }
    return true;
  }

 private:
  bool take_raw(char wanted) {
    if (at_ == end_ || *at_ != wanted) return false;
    ++at_;
    return true;
  }
  void skip() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }

  const char* at_;
  const char* end_;
};

bool known_dtype(char kind, int64_t bytes, Dtype* dtype) {
  for (int i = 0; i < kDtypes; ++i) {
    const auto candidate = static_cast<Dtype>(i);
    // NumPy's kinds are the first letters of the names; it has no bfloat16 of its own.
    if (candidate != Dtype::kBfloat16 && dtype_name(candidate)[0] == kind &&
        static_cast<int64_t>(size_of(candidate)) == bytes) {
      *dtype = candidate;
      return true;
    }
  }
  return false;
}

// Parses what may follow the number of bytes of a time: "[ns]" or "[25us]".
bool is_time_unit(const std::string& text) {
  if (text.size() < 3 || text.front() != '[' || text.back() != ']') return false;
  size_t at = 1;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
  if (at > 10) return false;
  const std::string unit = text.substr(at, text.size() - 1 - at);
  for (const char* known : {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"}) {
    if (unit == known) return true;
  }
  return at == 1 && unit == "generic";
}

// Whether NumPy has elements of this kind and size.
bool has_size(char kind, int64_t bytes) noexcept {
  switch (kind) {
    case 'b': return bytes == 1;
    case 'i':
    case 'u': return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
    case 'f': return bytes == 2 || bytes == 4 || bytes == 8 || bytes == 12 || bytes == 16;
    case 'c': return bytes == 8 || bytes == 16 || bytes == 24 || bytes == 32;
    case 'm':
    case 'M': return bytes == 8;
    default: return true;
  }
}

// Converts Latin-1, in which the headers of versions 1 and 2 are written, to UTF-8, which Python's C API expects.
std::string from_latin1(const std::string& text) {
  std::string utf8;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) utf8 += static_cast<char>(0xC0 | byte >> 6);
    utf8 += byte >= 0x80 ? static_cast<char>(0x80 | (byte & 0x3F)) : c;
  }
  return utf8;
}

// Parses a type string such as "<f4". Returns the number of bytes of one element, or 0 and the reason in *reason.
int64_t parse_type(const std::string& descr, HeaderField* field, const char** reason) {
  *reason = "has a dtype that is not understood";
  if (descr.size() < 2) return 0;
  const char order = descr[0];
  const char kind = descr[1];
  if (std::strchr("<>|=", order) == nullptr) return 0;
  if (kind == 'O') {
    *reason = "holds Python objects (dtype object), which are never unpickled: save it as numbers";
    return 0;
  }
  if (std::strchr("biufcmMSUV", kind) == nullptr) return 0;
  size_t at = 2;
  int64_t bytes = 0;
  for (; at < descr.size() && descr[at] >= '0' && descr[at] <= '9'; ++at) {
    bytes = bytes * 10 + (descr[at] - '0');
    if (bytes > kMaxElementBytes) return 0;
  }
  const bool unit_allowed = kind == 'm' || kind == 'M';
  if (at == 2 || bytes == 0 || !has_size(kind, bytes)) return 0;
  if (at != descr.size() && !(unit_allowed && is_time_unit(descr.substr(at)))) return 0;
  if (kind == 'U') bytes *= 4;
  field->descr = descr;
  if (known_dtype(kind, bytes, &field->dtype)) {
    const bool little = std::endian::native == std::endian::little;
    field->swapped = bytes > 1 && order == (little ? '>' : '<');
  } else {
    field->opaque = true;
    field->dtype = Dtype::kUint8;
  }
  return bytes;
}

Status parse_fields(Literal& literal, const char* path, ArrayHeader* header) {
  const Status damaged(Code::kInvalidArgument, "[loader] %s has a damaged .npy header: its dtype cannot be read", path);
  const char* reason = nullptr;
  std::string text;
  if (literal.next_is('\'') || literal.next_is('"')) {
    HeaderField field;
    if (!literal.text(&text)) return damaged;
    header->record_bytes = parse_type(text, &field, &reason);
    if (header->record_bytes == 0) return {Code::kInvalidArgument, "[loader] %s %s", path, reason};
    if (field.opaque) field.shape.push_back(header->record_bytes);
    header->fields.push_back(field);
    return {};
  }
  header->structured = true;
  if (!literal.take('[')) return damaged;
  while (!literal.take(']')) {
    HeaderField field;
    if (!literal.take('(')) return damaged;
    if (literal.take('(')) {  // a pair (title, name)
      if (!literal.text(&text) || !literal.take(',') || !literal.text(&field.name) || !literal.take(')'))
        return damaged;
    } else if (!literal.text(&field.name)) {
      return damaged;
    }
    if (!literal.take(',')) return damaged;
    if (literal.next_is('[')) {
      return {Code::kInvalidArgument, "[loader] %s has records within records: flatten its dtype", path};
    }
    if (!literal.text(&text)) return damaged;
    const int64_t bytes = parse_type(text, &field, &reason);
    if (bytes == 0) return {Code::kInvalidArgument, "[loader] %s %s", path, reason};
    if (literal.take(',') && !literal.next_is(')') && !literal.integers(&field.shape)) return damaged;
    if (!literal.take(')') || (!literal.take(',') && !literal.next_is(']'))) return damaged;
    int64_t total = bytes;
    for (int64_t extent : field.shape) {
      if (__builtin_mul_overflow(total, extent, &total) || total > (int64_t{1} << 40)) return damaged;
    }
    if (field.opaque) field.shape.push_back(bytes);
    field.offset = header->record_bytes;
    header->record_bytes += total;
    if (header->record_bytes > (int64_t{1} << 40) || header->fields.size() == kMaxFields) return damaged;
    if (!field.name.empty()) header->fields.push_back(field);  // a field without a name is padding
  }
  return header->fields.empty() ? damaged : Status{};
}

// Checks that the array fits into the file. An absurdly long axis is refused even if another axis has length 0.
Status check_size(const ArrayHeader& header, int64_t file_bytes, const char* path) {
  constexpr int64_t kAbsurd = int64_t{1} << 56;
  int64_t bytes = header.record_bytes;
  bool empty = false;
  for (int64_t extent : header.shape) {
    empty |= extent == 0;
    if (extent > 0 && (__builtin_mul_overflow(bytes, extent, &bytes) || bytes > kAbsurd)) bytes = kAbsurd;
  }
  if (bytes < kAbsurd && (empty || bytes <= file_bytes - header.data_offset)) return {};
  return {Code::kInvalidArgument,
          "[loader] %s is truncated or foreign: its header promises %s%lld bytes of data, and it holds %lld",
          path,
          bytes == kAbsurd ? "more than " : "",
          static_cast<long long>(bytes),
          static_cast<long long>(file_bytes - header.data_offset)};
}

}  // namespace

Status parse_npy_header(const std::byte* data, size_t bytes, int64_t file_bytes, const char* path,
                        ArrayHeader* header) {
  *header = {};
  const auto* raw = reinterpret_cast<const unsigned char*>(data);
  const Status truncated(Code::kInvalidArgument, "[loader] %s is truncated: it ends within its .npy header", path);
  if (bytes < 6 || std::memcmp(raw, "\x93NUMPY", 6) != 0) {
    return {Code::kInvalidArgument, "[loader] %s is not a .npy file", path};
  }
  if (bytes < 10) return truncated;
  const int major = raw[6];
  if (major < 1 || major > 3) {
    return {Code::kInvalidArgument, "[loader] %s is .npy of version %d, expected 1 to 3", path, major};
  }
  const size_t start = major == 1 ? 10 : 12;
  if (bytes < start) return truncated;
  size_t length = raw[8] | static_cast<size_t>(raw[9]) << 8;
  if (major > 1) length |= static_cast<size_t>(raw[10]) << 16 | static_cast<size_t>(raw[11]) << 24;
  if (length > kLongestHeader - start) {
    return {Code::kInvalidArgument, "[loader] %s has a .npy header of %zu bytes, expected at most %zu", path, length,
            kLongestHeader - start};
  }
  if (bytes - start < length) return truncated;
  header->data_offset = static_cast<int64_t>(start + length);

  const Status damaged(Code::kInvalidArgument, "[loader] %s has a damaged .npy header", path);
  const char* text = reinterpret_cast<const char*>(raw + start);
  Literal literal(text, text + length);
  bool have_descr = false, have_order = false, have_shape = false;
  if (!literal.take('{')) return damaged;
  while (!literal.take('}')) {
    std::string key;
    if (!literal.text(&key) || !literal.take(':')) return damaged;
    if (key == "descr" && !have_descr) {
      have_descr = true;
      if (Status status = parse_fields(literal, path, header); !status.ok()) return status;
    } else if (key == "fortran_order" && !have_order) {
      have_order = true;
      header->fortran_order = literal.word("True");
      if (!header->fortran_order && !literal.word("False")) return damaged;
    } else if (key == "shape" && !have_shape) {
      have_shape = true;
      if (!literal.integers(&header->shape)) return damaged;
    } else {
      return damaged;
    }
    if (!literal.take(',') && !literal.next_is('}')) return damaged;
  }
  if (!literal.done() || !have_descr || !have_order || !have_shape) return damaged;
  for (HeaderField& field : header->fields) {
    if (major < 3) field.name = from_latin1(field.name);
  }
  return check_size(*header, file_bytes, path);
}

Status parse_idx_header(const std::byte* data, size_t bytes, int64_t file_bytes, const char* path,
                        ArrayHeader* header) {
  *header = {};
  const auto* raw = reinterpret_cast<const unsigned char*>(data);
  const char* descr = nullptr;
  if (bytes >= 4 && raw[0] == 0 && raw[1] == 0) {
    switch (raw[2]) {
      case 0x08: descr = "|u1"; break;
      case 0x09: descr = "|i1"; break;
      case 0x0B: descr = ">i2"; break;
      case 0x0C: descr = ">i4"; break;
      case 0x0D: descr = ">f4"; break;
      case 0x0E: descr = ">f8"; break;
      default: break;
    }
  }
  if (descr == nullptr) return {Code::kInvalidArgument, "[loader] %s is not an IDX file", path};
  const size_t axes = raw[3];
  if (axes < 1 || axes > 8) {
    return {Code::kInvalidArgument, "[loader] %s says that it has %zu axes, expected 1 to 8", path, axes};
  }
  if (bytes < 4 + 4 * axes) {
    return {Code::kInvalidArgument, "[loader] %s is truncated: it ends within its IDX header", path};
  }
  HeaderField field;
  const char* reason = nullptr;
  header->record_bytes = parse_type(descr, &field, &reason);
  header->fields.push_back(field);
  for (size_t axis = 0; axis < axes; ++axis) {
    const unsigned char* at = raw + 4 + 4 * axis;
    header->shape.push_back(int64_t{at[0]} << 24 | at[1] << 16 | at[2] << 8 | at[3]);
  }
  header->data_offset = static_cast<int64_t>(4 + 4 * axes);
  return check_size(*header, file_bytes, path);
}

}  // namespace gradring
