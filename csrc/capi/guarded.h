// Every function of the C interface runs inside this: it turns exceptions into error codes, and keeps their messages as the
// thread's last error.
#pragma once

#include <cstdio>
#include <exception>
#include <new>

#include "gradring/gradring.h"
#include "runtime/status.h"

namespace gradring::capi {

inline thread_local char last_error[256] = {0};

inline int failed(Code code, const char* message) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return static_cast<int>(code);
}

template <class Body>
int guarded(Body&& body) noexcept {
  try {
    body();
    return GRADRING_OK;
  } catch (const Error& error) {
    return failed(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return failed(Code::kOutOfMemory, "[gradring] out of memory");
  } catch (const std::exception& error) {
    return failed(Code::kInternal, error.what());
  }
}

inline void require(bool good, const Status& otherwise) {
  if (!good) throw Error(otherwise);
}

}  // namespace gradring::capi
