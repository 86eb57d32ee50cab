// Ranks that are threads: the end of a thread is the end of its ranks, unless another thread uses them afterwards.
#pragma once

#include <memory>

#include "comm/control.h"

namespace gradring {

class ThreadRank {
 public:
  ThreadRank(std::shared_ptr<ControlBlock> control, int rank);
  ~ThreadRank();
  ThreadRank(const ThreadRank&) = delete;
  ThreadRank& operator=(const ThreadRank&) = delete;

  // Notes that the calling thread uses the rank from now on.
  void touch();

 private:
  struct Shared;
  struct ThisThread;
  std::shared_ptr<Shared> shared_;
};

}  // namespace gradring
