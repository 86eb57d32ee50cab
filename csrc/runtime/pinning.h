// Pinned memory: memory of the host from which a device copies without staging. A device's module, such as _cuda, offers a Pinner
// when it is loaded; the owner of memory registers ranges of it, without knowing the device.
//
// | variable | writer                   | readers      | order            | why                                    |
// |----------|--------------------------|--------------|------------------|----------------------------------------|
// | offered  | the module as it loads   | pinner       | release, acquire | what the module has set up is seen too |
#pragma once

#include <cstddef>
#include <map>

#include "gradring/export.h"
#include "runtime/status.h"

namespace gradring {

class GRADRING_API Pinner {
 public:
  virtual ~Pinner() = default;
  // Registers whole pages, none of which is registered already. Any thread may call it.
  virtual Status pin(void* address, size_t bytes) noexcept = 0;
  // Ends the registration that begins at this address. Copies from the range must have ended. Any thread may call it.
  virtual void unpin(void* address) noexcept = 0;
};

// The module's offer; it must stay valid until the process ends. Null takes the offer back.
GRADRING_API void offer_pinner(Pinner* pinner) noexcept;
// Null if no module has offered one.
GRADRING_API Pinner* pinner() noexcept;

// The registrations of one owner's memory. Its destructor ends them, so it must run before the memory is unmapped. One thread at
// a time.
//
// The device keeps the physical pages that it found at registration. So a page must not move or be dropped while it is
// registered: an owner collapses memory into huge pages before it registers it, and trims none of it afterwards. A registration
// covers whole pages, and a copy must lie within one of them.
class PinnedRanges {
 public:
  explicit PinnedRanges(Pinner& pinner) noexcept : pinner_(pinner) {}
  ~PinnedRanges();
  PinnedRanges(const PinnedRanges&) = delete;
  PinnedRanges& operator=(const PinnedRanges&) = delete;

  // Registers a range. kInvalidArgument: it does not begin and end on pages, or overlaps another range of this owner. Any other
  // failure is the device's refusal: the memory is as good as before, and copies from it are staged.
  Status add(void* address, size_t bytes) noexcept;
  // Whether the bytes lie within one registration.
  bool hold(const void* address, size_t bytes) const noexcept;
  size_t count() const noexcept { return ranges_.size(); }

 private:
  Pinner& pinner_;
  std::map<std::byte*, size_t> ranges_;  // by their begin
};

}  // namespace gradring
