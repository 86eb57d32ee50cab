// Reports an error of the tested program: writes one line to standard error, and ends the process with
// kErrorStatus, because the program cannot continue.
#pragma once

namespace gradring::software {

inline constexpr int kErrorStatus = 66;

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace gradring::software
