#include "runtime/cgroup.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

namespace gradring {

namespace {

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

// The number in a file, or nothing for "max", a negative value (v1: no limit) or a missing file.
std::optional<double> read_number(const std::string& path) {
  const auto line = read_line(path);
  if (!line) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(line->c_str(), &end);
  if (end == line->c_str() || value < 0) return std::nullopt;
  return value;
}

// The value after `key` in a file of "key value" lines.
double read_field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string word;
    double value = 0;
    if (words >> word >> value && word == key) return value;
  }
  return 0;
}

// The folder of this process's group, for a v1 controller or (with an empty name) for v2, and every folder above it. In a
// container the path may be the host's and be missing here, but the folders above it exist.
std::vector<std::string> group_folders(const std::string& root, const std::string& controller) {
  std::string path;
  std::ifstream file(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {  // "4:memory:/a/b", "2:cpu,cpuacct:/", "0::/a/b"
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controller.empty() ? names == ",," : names.find("," + controller + ",") != std::string::npos) {
      path = line.substr(second + 1);
    }
  }
  std::vector<std::string> mounts;
  if (controller.empty()) {
    mounts = {root + "/sys/fs/cgroup", root + "/sys/fs/cgroup/unified"};
  } else {
    mounts = {root + "/sys/fs/cgroup/" + controller};
  }
  while (!path.empty() && path.back() == '/') path.pop_back();
  std::vector<std::string> folders;
  for (;;) {
    for (const auto& mount : mounts) folders.push_back(mount + path);
    if (path.empty()) return folders;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

uint64_t bytes_left(double limit, double used, double reclaimable) {
  const double left = limit - std::max(used - reclaimable, 0.0);
  if (left >= 9e18) return kUnlimited;
  return left > 0 ? static_cast<uint64_t>(left) : 0;
}

}  // namespace

double cgroup_cpu_quota(const std::string& root) {
  double quota = std::numeric_limits<double>::infinity();
  for (const auto& folder : group_folders(root, "")) {
    const auto line = read_line(folder + "/cpu.max");  // "max 100000" or "150000 100000"
    if (!line) continue;
    std::istringstream words(*line);
    double limit = 0, period = 0;
    if (words >> limit >> period && period > 0) quota = std::min(quota, limit / period);
  }
  for (const auto& folder : group_folders(root, "cpu")) {
    const auto limit = read_number(folder + "/cpu.cfs_quota_us");
    const auto period = read_number(folder + "/cpu.cfs_period_us");
    if (limit && period && *limit > 0 && *period > 0) quota = std::min(quota, *limit / *period);
  }
  return quota;
}

uint64_t cgroup_memory_left(const std::string& root) {
  uint64_t left = kUnlimited;
  for (const auto& folder : group_folders(root, "")) {
    const auto limit = read_number(folder + "/memory.max");
    const auto used = read_number(folder + "/memory.current");
    if (!limit || !used) continue;
    left = std::min(left, bytes_left(*limit, *used, read_field(folder + "/memory.stat", "inactive_file")));
  }
  for (const auto& folder : group_folders(root, "memory")) {
    const auto limit = read_number(folder + "/memory.limit_in_bytes");
    const auto used = read_number(folder + "/memory.usage_in_bytes");
    if (!limit || !used) continue;
    left = std::min(left, bytes_left(*limit, *used, read_field(folder + "/memory.stat", "total_inactive_file")));
  }
  return left;
}

uint64_t memory_left(const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  const double kilobytes = read_field(meminfo, "MemAvailable:") + read_field(meminfo, "SwapFree:");
  const uint64_t machine = kilobytes > 0 ? static_cast<uint64_t>(kilobytes * 1024) : kUnlimited;
  return std::min(machine, cgroup_memory_left(root));
}

}  // namespace gradring
