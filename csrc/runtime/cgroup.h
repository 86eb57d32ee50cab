// Limits that control groups (v1 and v2, nested) put on this process.
#pragma once

#include <cstdint>
#include <string>

#include "gradring/export.h"

namespace gradring {

// `root` is put before every path that is read, so that tests can read files that they wrote instead of the machine's.

// How many cores' worth of CPU time this process may use: the smallest quota of its group and the groups above it.
// Infinity where there is no limit.
double cgroup_cpu_quota(const std::string& root = "");

// Bytes that the tightest group still lets this process use (its page cache counts as free); UINT64_MAX without a
// limit.
uint64_t cgroup_memory_left(const std::string& root = "");

// How many bytes this process can still get: the least of what the machine has left, swap included, and what the groups allow.
GRADRING_API uint64_t memory_left(const std::string& root = "");

}  // namespace gradring
