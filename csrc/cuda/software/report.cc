#include "cuda/software/report.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>

#include "cuda/software/grid.h"

namespace gradring::software {

void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::fprintf(stderr, "software device: %s: ", running_kernel());
  std::vfprintf(stderr, format, values);
  std::fputc('\n', stderr);
  va_end(values);
  std::fflush(nullptr);
  _exit(kErrorStatus);
}

}  // namespace gradring::software
