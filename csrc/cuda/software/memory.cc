#include "cuda/software/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cuda/software/entry.h"
#include "cuda/software/report.h"
#include "cuda/software/sanitizers.h"

namespace gradring::software {

namespace {

constexpr size_t kPage = 4096;
constexpr unsigned char kCanary = 0xa5;

size_t pages(size_t bytes) { return (std::max<size_t>(bytes, 1) + kPage - 1) / kPage * kPage; }

void fill(void* memory, int value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    static_cast<volatile unsigned char*>(memory)[i] = static_cast<unsigned char>(value);
}

}  // namespace

Allocation* allocation_of(const void* address, size_t bytes, uintptr_t* base) {
  auto& memory = state().memory;
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto found = memory.upper_bound(at);
  if (found == memory.begin()) return nullptr;
  --found;
  // A copy may begin in one registered range and end in another: it then belongs to no allocation.
  if (at + bytes > found->first + found->second.bytes || (at == found->first + found->second.bytes && bytes == 0))
    return nullptr;
  if (base) *base = found->first;
  return &found->second;
}

bool is_device_kind(const Allocation& allocation) {
  return allocation.kind == Allocation::Kind::kDevice || allocation.kind == Allocation::Kind::kImported;
}

void* map_shared(int memfd, size_t bytes, size_t mapped) {
  void* whole = mmap(nullptr, mapped + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  char* inner = static_cast<char*>(whole) + kPage;
  if (mmap(inner, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memfd, 0) == MAP_FAILED) {
    munmap(whole, mapped + 2 * kPage);
    return nullptr;
  }
  forbid_bytes(inner + bytes, mapped - bytes);
  return inner;
}

void* map_allocation(size_t bytes, Allocation::Kind kind, int device, bool stream_ordered) {
  State& s = state();
  const bool counts = kind == Allocation::Kind::kDevice;
  size_t& used = s.used[static_cast<size_t>(device)];
  if (counts && (bytes > s.options.memory || used > s.options.memory - bytes)) {
    note(cudaErrorMemoryAllocation);
    return nullptr;
  }
  Allocation made;
  made.kind = kind;
  made.bytes = bytes;
  made.mapped = pages(bytes);
  made.device = device;
  made.stream_ordered = stream_ordered;
  made.memfd = memfd_create("gradring-software-device", MFD_CLOEXEC);
  void* memory = nullptr;
  if (made.memfd >= 0 && ftruncate(made.memfd, static_cast<off_t>(made.mapped)) == 0) {
    memory = map_shared(made.memfd, bytes, made.mapped);
  }
  if (!memory) {
    if (made.memfd >= 0) close(made.memfd);
    note(cudaErrorMemoryAllocation);
    return nullptr;
  }
  allow_bytes(memory, made.mapped);
  fill(memory, 0xff, bytes);  // all bits set: NaN in every float type
  fill(static_cast<char*>(memory) + bytes, kCanary, made.mapped - bytes);
  forbid_bytes(static_cast<char*>(memory) + bytes, made.mapped - bytes);
  s.memory[reinterpret_cast<uintptr_t>(memory)] = made;
  if (counts) used += bytes;
  return memory;
}

void unmap_allocation(uintptr_t base) {
  State& s = state();
  const Allocation gone = s.memory.at(base);
  char* memory = reinterpret_cast<char*>(base);
  allow_bytes(memory, gone.mapped);
  for (size_t i = gone.bytes; i < gone.mapped && gone.kind != Allocation::Kind::kImported; ++i) {
    if (static_cast<unsigned char>(memory[i]) != kCanary) {
      fail("an allocation of %zu bytes was written %zu bytes beyond its end", gone.bytes, i - gone.bytes);
    }
  }
  if (gone.kind == Allocation::Kind::kDevice) s.used[static_cast<size_t>(gone.device)] -= gone.bytes;
  s.memory.erase(base);
  if (gone.memfd >= 0) close(gone.memfd);
  // Keep the addresses reserved but inaccessible: a late use then faults, and cannot damage another allocation.
  mmap(memory, gone.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void check_access(const void* address, size_t bytes) {
  const Unseen unseen;
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (at % bytes != 0) fail("a %zu-byte access at %p is not aligned", bytes, address);
  auto& memory = state().memory;  // the caller runs a GPU thread, so it holds the lock
  auto found = memory.upper_bound(at);
  if (found == memory.begin()) return;
  --found;
  const size_t offset = at - found->first;
  if (offset >= found->second.mapped) return;  // shared memory, or memory of the host
  if (offset + bytes > found->second.bytes) {
    fail("a %zu-byte access at %p, %zu bytes into an allocation of %zu", bytes, address, offset, found->second.bytes);
  }
}

std::string leaks() {
  const Lock held;
  State& s = state();
  if (s.sticky != cudaSuccess) return "";  // a lost device cannot free anything
  std::string text;
  const auto say = [&text](size_t count, const char* what) {
    if (count > 0) text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + what;
  };
  size_t device = 0, pinned = 0, registered = 0, imported = 0, bytes = 0, streams = 0;
  for (const auto& [base, each] : s.memory) {
    if (each.freed) continue;
    device += each.kind == Allocation::Kind::kDevice;
    bytes += each.kind == Allocation::Kind::kDevice ? each.bytes : 0;
    pinned += each.kind == Allocation::Kind::kPinned;
    registered += each.kind == Allocation::Kind::kRegistered;
    imported += each.kind == Allocation::Kind::kImported;
  }
  say(device, ("device allocations of " + std::to_string(bytes) + " bytes").c_str());
  say(pinned, "pinned allocations");
  say(registered, "registered ranges");
  say(imported, "imported allocations");
  for (const CUstream_st* each : s.streams) streams += !each->legacy && !each->per_thread;
  say(streams, "streams");
  say(s.events.size(), "events");
  say(s.graphs.size(), "graphs");
  say(s.executables.size(), "executable graphs");
  return text;
}

}  // namespace gradring::software
