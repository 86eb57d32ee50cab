// How a process ended, or whether it is stopped, from its pidfd.
#pragma once

namespace gradring {

// Returns the status in the form of wait(2). It returns -1 if the kernel does not know it (before Linux 6.15), or if the process
// has not been reaped after some milliseconds.
int exit_status_of(int pidfd) noexcept;

// Whether the process is stopped, by a signal or a debugger; false as well if that cannot be read.
bool is_stopped(int pidfd) noexcept;

}  // namespace gradring
