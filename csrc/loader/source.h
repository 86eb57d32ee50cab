// Source: what the loader's workers read samples from.
//
// A source has a length and fields (the arrays of a sample: image, label, ...). Workers call read at the same time,
// each with a part of a batch and with scratch of its own; the rows go straight to where the batch lies. A
// TransformedSource (transform.h) is a source too, so that a worker knows this interface alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "gradring/export.h"
#include "runtime/dtype.h"
#include "runtime/status.h"

namespace gradring {

// One array of a sample.
struct FieldSpec {
  std::string name;  // for messages, and the key of a dict source
  Dtype dtype = Dtype::kFloat32;
  std::vector<int64_t> shape;  // the shape of one row, without the axis of the samples

  int64_t elements() const noexcept {
    int64_t count = 1;
    for (int64_t extent : shape) count *= extent;
    return count;
  }
  size_t row_bytes() const noexcept { return static_cast<size_t>(elements()) * size_of(dtype); }
};

// A source returns this code instead of Code::kPython if a Python function raised something that is not an Exception, such as
// KeyboardInterrupt or SystemExit. Such a sample must not be skipped.
inline constexpr Code kPythonExit{int32_t{1000} + static_cast<int32_t>(Code::kPython)};

// Whether the bindings hold an exception of Python.
constexpr bool is_python(Code code) noexcept { return code == Code::kPython || code == kPythonExit; }

// How the time of reads was spent: nanoseconds for each of the source's parts(). Only some reads are timed.
struct PartTimes {
  static constexpr size_t kMost = 16;
  uint64_t ns[kMost] = {};
};

// Tells a reader whether its rows are still wanted. A source with a user's function asks between samples.
class Stop {
 public:
  virtual bool asked() const noexcept = 0;

 protected:
  ~Stop() = default;
};

struct ReadRequest {
  const int64_t* samples = nullptr;  // each in [0, length)
  int64_t rows = 0;
  std::byte* const* fields = nullptr;  // where the rows of each field go, one after the other, without gaps
  std::byte* scratch = nullptr;        // this worker's own memory: scratch_bytes() long, 64-byte aligned
  uint64_t seed = 0;                   // the key of random transforms is (seed, epoch, sample, place of the transform)
  uint64_t epoch = 0;
  PartTimes* times = nullptr;  // if not null, the source adds the time of each part to it
  const Stop* stop = nullptr;  // if not null, and once it says so, the source may end early with Code::kClosed
  bool streaming = false;      // a hint: no cache will hold the rows until they are read
};

class GRADRING_API Source {
 public:
  virtual ~Source() = default;

  virtual int64_t length() const noexcept = 0;
  virtual const std::vector<FieldSpec>& fields() const noexcept = 0;
  virtual size_t scratch_bytes() const noexcept { return 0; }

  // Fills request.rows rows of every field. Many threads may call it concurrently. On failure, *failed_row is the row
  // of the request that failed (rows before it may or may not be written), and the message names the file and the
  // offset, if there are any.
  virtual Status read(const ReadRequest& request, int64_t* failed_row) const noexcept = 0;

  // For statistics: the names of the parts of a read that follow fetching the rows, such as "Scale of field x", at most
  // PartTimes::kMost.
  virtual std::vector<std::string> parts() const { return {}; }

  // Turns this source's sample numbers into those of the innermost source, which users know.
  virtual void number(int64_t* samples, int64_t rows) const noexcept { (void)samples, (void)rows; }

  // Tells the source that these samples will be read soon, so that a file source can start to fetch what is not in memory. It
  // never blocks for long.
  virtual void will_read(const int64_t* samples, int64_t rows) const noexcept {
    (void)samples;
    (void)rows;
  }
};

}  // namespace gradring
