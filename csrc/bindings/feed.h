// PyFeed: a source of batches in the form in which Python gives it to the engine.
#pragma once

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/held_error.h"
#include "program/epoch.h"

namespace gradring {

class PyFeed {
 public:
  virtual ~PyFeed() = default;
  PyFeed(const PyFeed&) = delete;
  PyFeed& operator=(const PyFeed&) = delete;

  Feed& feed() { return feed_; }

  // Takes the next batch without training on it, so that a program can be made and tuned for it.
  Batch& peek() {
    if (!feed_.has_waiting) {
      Status status;
      {
        const GilRelease release;
        status = feed_.source->next(&feed_.waiting, kNoDeadline);
      }
      throw_status(status);
      feed_.has_waiting = true;
    }
    return feed_.waiting;
  }

 protected:
  PyFeed() = default;
  void read(BatchSource* source) { feed_.source = source; }
  // Releases a batch that was taken and not trained on. Destructors call it.
  void drop_waiting() {
    if (feed_.has_waiting && feed_.waiting.rows > 0) feed_.source->release(feed_.waiting);
    feed_.has_waiting = false;
  }

 private:
  Feed feed_;
};

}  // namespace gradring
