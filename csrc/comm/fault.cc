// The messages of a group's failures.
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <string>

#include "comm/rounds.h"

namespace gradring {

namespace {

std::string text_of(const Agreement& a) {
  std::string text = collective_name(a.kind);
  if (a.kind == Collective::kShare) return text + "(" + std::to_string(a.count) + " bytes)";
  constexpr Collective kBare[] = {Collective::kNone, Collective::kBarrier, Collective::kSplit, Collective::kMeeting};
  if (std::find(std::begin(kBare), std::end(kBare), a.kind) != std::end(kBare)) return text;
  text += "(" + std::to_string(a.count) + " of " + element_name(a.element);
  if (a.kind == Collective::kAllReduce || a.kind == Collective::kReduceScatter) {
    text += std::string(", op=") + reduction_name(a.reduction) + (a.weighted ? ", with a weight" : "");
  }
  if (a.kind == Collective::kBroadcast) text += ", root=" + std::to_string(a.root);
  return text + ")";
}

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", value);
  return text;
}

}  // namespace

std::string GroupFault::message(int rank) const {
  using Reason = Failure::Reason;
  const std::string who = "rank " + std::to_string(failure.rank);
  const std::string op = std::string("[") + collective_name(kind) + "] ";
  const std::string where = " (operation " + std::to_string(sequence) + " of rank " + std::to_string(rank) + ")";
  switch (failure.reason) {
    case Reason::kExited: {
      std::string how = " ended";
      if (exit_status >= 0) {
        how = WIFSIGNALED(exit_status) ? " was killed by signal " + std::to_string(WTERMSIG(exit_status))
                                       : " exited with " + std::to_string(WEXITSTATUS(exit_status));
      }
      return op + who + how + " while this rank waited for it" + where;
    }
    case Reason::kClosed: return op + who + " closed its communicator while this rank waited for it" + where;
    case Reason::kThreadEnded: return op + who + "'s thread ended while this rank waited for it" + where;
    case Reason::kLeft:
      return failure.rank == rank
                 ? op + "this rank left the operation, because it was interrupted or closed its communicator" + where
                 : op + who + " left the operation, because it was interrupted or closed its communicator" + where;
    case Reason::kLost:
      return op + (failure.rank == rank ? "this rank" : who) +
             " left the operation, because another communicator failed and took its arrays out of shared memory" +
             where;
    case Reason::kMemory: return op + who + " cannot map a peer's arrays" + where;
    case Reason::kStalled: {
      std::string last = peer_entered ? "; its last operation was number " + std::to_string(peer_entered) + ", " +
                                            collective_name(peer_kind)
                                      : "; it has begun no operation";
      if (activity != Activity::kUnknown) last += ", and it is " + std::string(activity_name(activity));
      if (stopped) last += "; its process is stopped, by a signal or a debugger";
      if (failure.rank == rank) return op + "the other ranks declared this rank stalled" + where;
      return op + who + " did not come within " + seconds(timeout) + where + last +
             (stack.empty() ? "" : "; its Python stack:\n" + stack);
    }
    case Reason::kMismatch: {
      if (other < 0) return op + "ranks called different operations" + where;
      return op + "rank " + std::to_string(rank) + " called " + text_of(mine) + ", rank " + std::to_string(other) +
             " called " + (whole ? text_of(theirs) : collective_name(theirs.kind)) + where +
             ": all ranks must make the same calls in the same order";
    }
    case Reason::kNone: break;
  }
  return op + "failed" + where;
}

}  // namespace gradring
