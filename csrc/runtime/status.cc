#include "runtime/status.h"

#include <cstdio>

namespace gradring {

Status::Status(Code code, const char* format, ...) noexcept : code_(code) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message_, sizeof message_, format, arguments);
  va_end(arguments);
}

}  // namespace gradring
