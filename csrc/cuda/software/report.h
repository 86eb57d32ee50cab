// What the software device says of a program that is wrong: one line on standard error, and the process ends with
// kErrorStatus, because no program may go on from there.
#pragma once

namespace gradring::software {

inline constexpr int kErrorStatus = 66;

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace gradring::software
