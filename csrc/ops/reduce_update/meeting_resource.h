// MeetingResource: the meeting of a rank as an entry of its programs' table of resources.
#pragma once

#include <memory>
#include <utility>

#include "ops/resource.h"
#include "runtime/meeting.h"

namespace gradring {

class MeetingResource final : public Resource {
 public:
  static constexpr const char* kKind = "meeting";
  // `owner` keeps the meeting alive.
  MeetingResource(Meeting& meeting, std::shared_ptr<const void> owner) : meeting_(meeting), owner_(std::move(owner)) {}

  const char* kind() const noexcept override { return kKind; }
  Meeting& meeting() const noexcept { return meeting_; }

 private:
  Meeting& meeting_;
  std::shared_ptr<const void> owner_;
};

}  // namespace gradring
