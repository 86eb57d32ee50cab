#include "runtime/arena.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "runtime/cgroup.h"
#include "runtime/huge_pages.h"
#include "runtime/status.h"
#include "runtime/testing.h"

using gradring::AlignedArena;
using gradring::Code;
using gradring::Error;
using gradring::SharedArena;

namespace {

template <class Body>
Code code_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  return Code::kOk;
}

bool all_zero(const std::byte* data, size_t size) {
  return std::all_of(data, data + size, [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

TEST_CASE("an aligned arena is zeroed, aligned and writable to its last byte") {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{4097}, size_t{5} << 20, (size_t{9} << 20) + 13}) {
    AlignedArena arena(bytes);
    CHECK(arena.size() == bytes);
    CHECK(reinterpret_cast<uintptr_t>(arena.data()) % 4096 == 0);
    if (bytes >= size_t{4} << 20) CHECK(reinterpret_cast<uintptr_t>(arena.data()) % (2 << 20) == 0);
    CHECK(all_zero(arena.data(), bytes));
    if (bytes) arena.data()[bytes - 1] = std::byte{7};
  }
}

TEST_CASE("an arena that cannot exist is an error") {
  CHECK(code_of([] { AlignedArena arena(SIZE_MAX); }) == Code::kOutOfMemory);
  CHECK(code_of([] { AlignedArena arena(size_t{1} << 60); }) == Code::kOutOfMemory);
  CHECK(code_of([] { SharedArena arena(0); }) == Code::kInvalidArgument);
  CHECK(code_of([] { SharedArena arena(SIZE_MAX); }) == Code::kInvalidArgument);
  CHECK(code_of([] { SharedArena arena(size_t{1} << 50); }) == Code::kOutOfMemory);
}

TEST_CASE("a shared arena is sealed, owner-only, allocated up front and zeroed") {
  const size_t bytes = (size_t{1} << 20) + 5;
  SharedArena arena(bytes);
  CHECK(all_zero(arena.data(), bytes));
  struct stat status {};
  REQUIRE(fstat(arena.fd(), &status) == 0);
  CHECK(status.st_size == static_cast<off_t>(bytes));
  CHECK((status.st_mode & 07777) == 0600);
  CHECK(static_cast<size_t>(status.st_blocks) * 512 >= bytes);
  CHECK(ftruncate(arena.fd(), 10) != 0);
  CHECK(ftruncate(arena.fd(), static_cast<off_t>(bytes) * 2) != 0);
  CHECK((fcntl(arena.fd(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("a child writes and the parent sees it, through fork and through attach") {
  SharedArena arena(8192);
  CHECK(gradring::testing::exit_of_child([&] {
          arena.data()[1] = std::byte{11};
          SharedArena again = SharedArena::attach(arena.fd());
          again.data()[8191] = std::byte{22};
          return again.size() == 8192 && again.fd() != arena.fd() ? 0 : 1;
        }) == 0);
  CHECK(arena.data()[1] == std::byte{11});
  CHECK(arena.data()[8191] == std::byte{22});
}

TEST_CASE("attach refuses what could shrink under it") {
  CHECK(code_of([] { SharedArena::attach(-1); }) == Code::kInvalidArgument);
  CHECK(code_of([] { SharedArena::attach(STDERR_FILENO); }) == Code::kInvalidArgument);
  const int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(ftruncate(unsealed, 4096) == 0);
  CHECK(code_of([&] { SharedArena::attach(unsealed); }) == Code::kInvalidArgument);
  close(unsealed);
}

namespace {

// Runs in a child process, because the setting for huge pages belongs to a process. Returns 0 if all is well.
int use_large_arenas(bool refused) {
  return gradring::testing::exit_of_child([refused] {
    if (refused && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) return 1;
    for (const size_t bytes : {gradring::kHugePage, gradring::kHugePage + 1, 3 * gradring::kHugePage - 4096}) {
      SharedArena arena(bytes);
      if (reinterpret_cast<uintptr_t>(arena.data()) % gradring::kHugePage != 0) return 2;
      if (!all_zero(arena.data(), bytes)) return 3;
      for (size_t i = 0; i < bytes; i += 997) arena.data()[i] = static_cast<std::byte>(i % 251);
      const SharedArena again = SharedArena::attach(arena.fd());
      if (reinterpret_cast<uintptr_t>(again.data()) % gradring::kHugePage != 0) return 4;
      for (size_t i = 0; i < bytes; i += 997)
        if (again.data()[i] != static_cast<std::byte>(i % 251)) return 5;
      if (refused && gradring::collapse_into_huge_pages(arena.data(), bytes)) return 6;
    }
    return 0;
  });
}

}  // namespace

TEST_CASE("arenas of 2 MiB and more begin at 2 MiB") { CHECK(use_large_arenas(false) == 0); }

TEST_CASE("large arenas are as good where huge pages are refused") { CHECK(use_large_arenas(true) == 0); }

TEST_CASE("a moved arena keeps its memory, and descriptors are given back") {
  const auto descriptors = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const auto before = descriptors();
  {
    SharedArena first(4096);
    first.data()[0] = std::byte{3};
    SharedArena second(std::move(first));
    CHECK(second.data()[0] == std::byte{3});
    CHECK(first.data() == nullptr);
    CHECK(descriptors() == before + 1);
  }
  CHECK(descriptors() == before);
}

TEST_CASE("limits of nested control groups are found") {
  namespace fs = std::filesystem;
  const fs::path root = fs::temp_directory_path() / ("gradring-cgroup-" + std::to_string(getpid()));
  const auto write = [&](const std::string& path, const std::string& text) {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  };
  CHECK(gradring::cgroup_cpu_quota(root) == std::numeric_limits<double>::infinity());
  CHECK(gradring::cgroup_memory_left(root) == UINT64_MAX);

  SUBCASE("version 2: the tightest level counts, and a missing one is passed over") {
    write("proc/self/cgroup", "0::/a/b/gone\n");
    write("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    write("sys/fs/cgroup/a/memory.max", "1000000\n");
    write("sys/fs/cgroup/a/memory.current", "600000\n");
    write("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 100000\n");
    write("sys/fs/cgroup/a/b/memory.max", "max\n");
    write("sys/fs/cgroup/a/b/memory.current", "5\n");
    CHECK(gradring::cgroup_cpu_quota(root) == doctest::Approx(1.5));
    CHECK(gradring::cgroup_memory_left(root) == 500000);
  }
  SUBCASE("version 1: controllers apart, -1 is no limit") {
    write("proc/self/cgroup", "4:memory:/m\n2:cpuacct,cpu:/c\n0::/\n");
    write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    write("sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "50000\n");
    write("sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
    write("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "4096\n");
    write("sys/fs/cgroup/memory/m/memory.usage_in_bytes", "9000\n");
    CHECK(gradring::cgroup_cpu_quota(root) == doctest::Approx(0.5));
    CHECK(gradring::cgroup_memory_left(root) == 0);
    write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 2 kB\nSwapFree: 1 kB\n");
    CHECK(gradring::memory_left(root) == 0);
  }
  SUBCASE("the machine's own limit") {
    write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 2 kB\nSwapFree: 1 kB\n");
    CHECK(gradring::memory_left(root) == 3072);
  }
  fs::remove_all(root);
}
