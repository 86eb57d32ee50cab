// A trace of spans: what each thread did when, written as Chrome's trace JSON (chrome://tracing, ui.perfetto.dev).
//
// | variable         | writer      | readers      | order             | why                                        |
// |------------------|-------------|--------------|-------------------|--------------------------------------------|
// | trace_is_on      | start, stop | every span   | relaxed           | a hint: one span more or less does no harm |
// | session          | start       | every record | relaxed           | changes under the registry's mutex         |
// | limit            | start       | every record | relaxed           | only a bound, set before session           |
// | rows             | TraceRow    | same         | relaxed           | each row has a number of its own           |
// | Buffer::session  | its thread  | trace_write  | release / acquire | the buffer belongs to this session         |
// | Buffer::size     | its thread  | trace_write  | release / acquire | events below size are whole, chunks too    |
// | Buffer::dropped  | its thread  | trace_write  | relaxed           | a count, and nothing else                  |
// | Buffer::orphaned | its thread  | trace_start  | release / acquire | its thread has ended and writes no more    |
//
// Each thread has a buffer of its own, so that recording takes no lock; the registry of buffers has a mutex, taken at
// a thread's first span, by start and by write. While the trace is off a span costs one relaxed load and a branch.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "gradring/export.h"
#include "runtime/clock.h"
#include "runtime/status.h"

namespace gradring {

GRADRING_API extern std::atomic<bool> trace_is_on;

// Forgets earlier spans and starts to record. Each thread keeps at most `events_per_thread` spans, and counts further ones.
GRADRING_API void trace_start(size_t events_per_thread = size_t{1} << 20);
GRADRING_API void trace_stop() noexcept;

// Writes the spans of the current session, or of the last one. Other threads may go on recording at the same time. Returns
// Code::kIo if the file cannot be written.
GRADRING_API Status trace_write(const char* path) noexcept;

// A copy of `name` that lives as long as the process. For names that are made at run time; not for hot paths.
GRADRING_API const char* trace_name(std::string_view name);

// Records a finished span of the calling thread, between two times of monotonic_ns(). `name` must outlive the trace. A `number`
// of 0 or more is shown with the span.
GRADRING_API void trace_record(const char* name, int64_t begin, int64_t end, int64_t number = -1) noexcept;

// A row of the trace that belongs to no thread, such as that of a device. One thread at a time records there. The row of an object
// that has died stays until the next trace_start.
class TraceRow {
 public:
  GRADRING_API explicit TraceRow(const char* name);  // up to 15 characters are shown
  GRADRING_API ~TraceRow();
  TraceRow(const TraceRow&) = delete;
  TraceRow& operator=(const TraceRow&) = delete;

  GRADRING_API void record(const char* name, int64_t begin, int64_t end, int64_t number = -1) noexcept;

 private:
  void* buffer_;
};

// Records the time from its construction to its destruction as a span: { TraceSpan span("gather"); ... }
class TraceSpan {
 public:
  explicit TraceSpan(const char* name, int64_t number = -1) noexcept {
    if (trace_is_on.load(std::memory_order_relaxed)) [[unlikely]] {
      name_ = name;
      number_ = number;
      begin_ = monotonic_ns();
    }
  }
  ~TraceSpan() {
    if (name_) [[unlikely]]
      trace_record(name_, begin_, monotonic_ns(), number_);
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  const char* name_ = nullptr;
  int64_t begin_ = 0;
  int64_t number_ = 0;
};

}  // namespace gradring
