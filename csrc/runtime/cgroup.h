// Limits that control groups (v1 and v2, nested) put on this process.
#pragma once

#include <cstdint>
#include <string>

#include "gradring/export.h"

namespace gradring {

// `root` is put before every path that is read, so that tests can lay out a machine of their own.

// CPU time per time, in cores, of the tightest group above this process; infinity without a limit.
double cgroup_cpu_quota(const std::string& root = "");

// Bytes that the tightest group still lets this process use (its page cache counts as free); UINT64_MAX without a
// limit.
uint64_t cgroup_memory_left(const std::string& root = "");

// What the machine and the groups together still have, swap included.
GRADRING_API uint64_t memory_left(const std::string& root = "");

}  // namespace gradring
