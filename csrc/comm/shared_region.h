// SharedRegion: memory in one rank's data segment that all ranks of a group map, in parts. Unlike the arrays of comm.empty, it
// stays shared after a failure: a rank that has mapped a part moves it to private memory itself (SharedArena::make_private).
//
// | variable      | writer                    | readers             | order            | why                                |
// |---------------|---------------------------|---------------------|------------------|------------------------------------|
// | Header::users | each rank, once each way  | the segment's owner | acq_rel, acquire | the memory is free at zero users   |
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/segment.h"
#include "gradring/export.h"

namespace gradring {

class SharedRegion {
 public:
  // `words` is where this process has the region, which begins with a Header; `fd` is the segment's file, in which the region
  // begins at `offset`. This rank counts as a user from now on.
  SharedRegion(std::shared_ptr<Segments> segments, std::byte* words, int fd, uint64_t offset,
               std::vector<size_t> parts);
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  size_t parts() const noexcept { return sizes_.size(); }
  size_t bytes(size_t part) const noexcept { return sizes_[part]; }
  // Where a part lies in the segment's file, and in this process's mapping of the whole segment.
  size_t offset(size_t part) const noexcept { return offset_ + places_[part]; }
  std::byte* at(size_t part) const noexcept { return words_ + places_[part]; }
  int fd() const noexcept { return fd_; }

  // The bytes of a region with such parts.
  GRADRING_API static size_t bytes_of(const std::vector<size_t>& parts) noexcept;

 private:
  std::shared_ptr<Segments> segments_;
  std::byte* words_;
  int fd_;
  uint64_t offset_;
  std::vector<size_t> sizes_, places_;
  uint64_t forks_;  // a forked child has a copy of this object, but is no user of the region
};

}  // namespace gradring
