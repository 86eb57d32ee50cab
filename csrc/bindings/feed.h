// PyFeed: a source of batches in the form in which Python gives it to the engine.
#pragma once

#include <pybind11/numpy.h>

#include <cstring>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/held_error.h"
#include "program/epoch.h"
#include "runtime/lane.h"

namespace gradring {

class PyFeed {
 public:
  virtual ~PyFeed() = default;
  PyFeed(const PyFeed&) = delete;
  PyFeed& operator=(const PyFeed&) = delete;

  Feed& feed() { return feed_; }
  // The size of a row of each field, in the dtype that the program reads.
  virtual const std::vector<size_t>& bytes_of_rows() const = 0;

  // Takes the next batch without training on it, so that a program can be made and tuned for it.
  Batch& peek() {
    if (!feed_.has_waiting) {
      Status status;
      {
        const GilRelease release;
        status = feed_.source->next(&feed_.waiting, kNoDeadline);
      }
      throw_for(status);
      feed_.has_waiting = true;
    }
    return feed_.waiting;
  }

  // Throws the exception for the status of a run that read this feed. If the source raised a Python exception, on any thread,
  // throws that one; the feed no longer keeps it. Needs the GIL.
  void throw_for(const Status& status) { throw_status(status, take_error()); }

  // Returns the exception that the source raised since the last call, or null. Needs the GIL.
  virtual py::object take_error() { return {}; }

  // The rows of a batch that its fields have: all, unless this feed gives a part of each batch.
  virtual int64_t rows_here(const Batch& batch) const { return batch.rows; }

  // Copies the fields of the next batch, which stays the next one, to arrays of their size.
  void read(const std::vector<py::array>& out) {
    const Batch& batch = peek();
    const std::vector<size_t>& row_bytes = bytes_of_rows();
    if (out.size() != row_bytes.size()) {
      throw Error(Code::kInvalidArgument, "[Feed.read] needs " + std::to_string(row_bytes.size()) +
                                              " arrays, one for each field, got " + std::to_string(out.size()));
    }
    feed_.source->fill(Lane{}, batch);
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t bytes = static_cast<size_t>(rows_here(batch)) * row_bytes[i];
      py::array array = out[i];
      if (static_cast<size_t>(array.nbytes()) != bytes || (array.flags() & py::array::c_style) == 0) {
        throw Error(Code::kInvalidArgument, "[Feed.read] array " + std::to_string(i) + " has " +
                                                std::to_string(array.nbytes()) + " bytes: must be C-contiguous, with " +
                                                std::to_string(bytes) + " bytes");
      }
      if (bytes > 0) std::memcpy(array.mutable_data(), batch.fields[i], bytes);
    }
  }

 protected:
  PyFeed() = default;
  void use(BatchSource* source) { feed_.source = source; }
  // Releases a batch that was taken and not trained on. Destructors call it.
  void drop_waiting() {
    if (feed_.has_waiting && feed_.waiting.rows > 0) feed_.source->release(feed_.waiting);
    feed_.has_waiting = false;
  }

 private:
  Feed feed_;
};

}  // namespace gradring
