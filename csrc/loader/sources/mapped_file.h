// MappedFile: a file mapped for reading, where a page that is gone becomes an error instead of the end of the process.
//
// Reading rows through a map was measured several times faster than pread for rows of a few kilobytes, but a file that
// another process cuts short turns a load into SIGBUS. So reads happen between enter and leave, and a SIGBUS handler
// puts an empty page where the file's was and notes the offset, as Wayland's servers do for their clients' buffers.
// A SIGBUS from elsewhere goes to the handler that was installed before. If another handler replaces this one later, enter
// returns false, and the caller reads with pread.
//
// | variable       | writer       | readers        | order             | why                                         |
// |----------------|--------------|----------------|-------------------|---------------------------------------------|
// | Guard::begin   | open, close  | the handler    | release / acquire | end belongs to it; 0: the guard is free     |
// | Guard::end     | open         | the handler    | relaxed           | written before begin, which publishes it    |
// | Guard::readers | enter, leave | the handler    | relaxed           | the same thread faults, or no read is open  |
// | Guard::lost    | the handler  | leave, lost_at | relaxed           | the same thread faulted, or saw it later    |
// | guards (list)  | open         | the handler    | release / acquire | a guard is never freed, only used again     |
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "gradring/export.h"
#include "runtime/status.h"

namespace gradring {

struct Guard;

class MappedFile {
 public:
  // Throws Error(kIo) if the file cannot be opened or is not a regular file.
  GRADRING_API explicit MappedFile(std::string path);
  GRADRING_API ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const noexcept { return path_; }
  int64_t size() const noexcept { return size_; }  // when it was opened
  const std::byte* data() const noexcept { return data_; }

  // Begins reading from the map. If it returns false, the map must not be touched: read with pread instead.
  bool enter() const noexcept;
  void leave() const noexcept;
  // How many bytes of the file are still there, as far as this object has noticed: fewer than size() if the file shrank.
  int64_t intact() const noexcept;
  Status cut_short(int64_t offset) const noexcept;

  // Reads `bytes` bytes at `offset`, all of them, or returns a Status that names the file and the offset.
  Status pread(int64_t offset, size_t bytes, std::byte* to) const noexcept;
  // Asks the system to fetch a range.
  void will_read(int64_t offset, int64_t bytes) const noexcept;

 private:
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
  const std::byte* data_ = nullptr;
  Guard* guard_ = nullptr;
};

}  // namespace gradring
