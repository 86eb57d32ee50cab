// How a process ended, from its pidfd.
#pragma once

namespace gradring {

// Returns the status in the form of wait(2). It returns -1 if the kernel does not know it (before Linux 6.15), or if the process
// has not been reaped after some milliseconds.
int exit_status_of(int pidfd) noexcept;

}  // namespace gradring
