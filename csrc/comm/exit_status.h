// How a process ended, from its pidfd.
#pragma once

namespace gradring {

// As wait(2) has it, or -1: the kernel does not tell (before Linux 6.15), or nobody has collected the process yet, for
// which this waits some milliseconds.
int exit_status_of(int pidfd) noexcept;

}  // namespace gradring
