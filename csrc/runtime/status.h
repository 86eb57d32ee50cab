// Status: what a hot path returns instead of throwing. Error: what setup and the bindings throw.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "gradring/export.h"

namespace gradring {

enum class Code : int32_t {
  kOk = 0,
  kInvalidArgument,  // misuse: becomes ValueError
  kOutOfRange,       // an index or label outside its range: becomes ValueError
  kOutOfMemory,      // becomes MemoryError
  kNonFinite,        // a loss that is NaN or infinite: becomes NonFinite
  kTimeout,          // a deadline passed
  kClosed,           // the other side is gone, or the object was closed
  kIo,               // a system call failed: becomes OSError
  kUnavailable,      // this build or machine lacks it
  kPython,           // a Python callback raised; the exception is held by the bindings
  kInternal,         // a broken invariant: please report
  kPeerDied,         // another rank ended while this one waited for it
  kPeerStalled,      // another rank did not answer before the deadline
  kMismatch,         // ranks called different collectives
  kInterrupted,      // a signal handler wants the wait to end
  kWrongType,        // an object or dtype of the wrong kind: becomes TypeError
};

// A code and a text. A Status is cheap to copy and never allocates: a text that is too long is cut.
class [[nodiscard]] GRADRING_API Status {
 public:
  Status() noexcept = default;
  Status(Code code, const char* format, ...) noexcept __attribute__((format(printf, 3, 4)));

  bool ok() const noexcept { return code_ == Code::kOk; }
  Code code() const noexcept { return code_; }
  const char* message() const noexcept { return message_; }

 private:
  Code code_ = Code::kOk;
  char message_[236] = {0};
};

class GRADRING_API Error : public std::runtime_error {
 public:
  explicit Error(const Status& status) : std::runtime_error(status.message()), code_(status.code()) {}
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Code code() const noexcept { return code_; }

 private:
  Code code_;
};

inline void throw_if(const Status& status) {
  if (!status.ok()) throw Error(status);
}

}  // namespace gradring
