// Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18 (how to find AMX); Linux,
// Documentation/arch/x86/xstate.rst (how a process asks for permission).
#include "runtime/tile_unit.h"

#include "runtime/cpu.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace gradring {

namespace {

#if defined(__x86_64__) && defined(__linux__)

constexpr long kGetPermission = 0x1022;  // ARCH_GET_XCOMP_PERM
constexpr long kAskPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr unsigned kTileData = 18;       // the number of the state that holds the tiles; 17 is their configuration

// The parts of the extended state that the system saves and restores when it switches threads.
uint64_t kept_state() noexcept {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool present() noexcept {
  constexpr unsigned kXsaveOn = 1u << 27, kBf16 = 1u << 22, kTile = 1u << 24;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kXsaveOn)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (kBf16 | kTile)) != (kBf16 | kTile)) return false;
  constexpr uint64_t kTiles = 3ull << (kTileData - 1);
  if ((kept_state() & kTiles) != kTiles) return false;
  // The products assume the sizes of palette 1: eight registers of 16 rows of 64 bytes.
  if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) return false;
  return b >> 16 >= 8 && (b & 0xffff) >= 64 && (c & 0xffff) >= 16;
}

// An emulator may report the processor's features without supporting this call, so look at what it has granted.
bool permitted() noexcept {
  uint64_t granted = 0;
  if (syscall(SYS_arch_prctl, kAskPermission, long{kTileData}) != 0) return false;
  if (syscall(SYS_arch_prctl, kGetPermission, &granted) != 0) return false;
  return (granted >> kTileData & 1) != 0;
}

#else

bool present() noexcept { return false; }
bool permitted() noexcept { return false; }

#endif

TileUnit ask() noexcept {
  if (detected_isa() != Isa::kAvx512 || !present()) return TileUnit::kAbsent;
  const char* wanted = std::getenv("GRADRING_ISA");
  for (const Isa lower : {Isa::kBase, Isa::kAvx2, Isa::kAvx512}) {
    if (wanted && std::strcmp(wanted, isa_name(lower)) == 0) return TileUnit::kSwitchedOff;
  }
  return permitted() ? TileUnit::kPermitted : TileUnit::kRefused;
}

}  // namespace

const char* tile_unit_name(TileUnit state) noexcept {
  switch (state) {
    case TileUnit::kPermitted: return "permitted";
    case TileUnit::kRefused: return "refused";
    case TileUnit::kSwitchedOff: return "switched off";
    default: return "absent";
  }
}

TileUnit tile_unit() noexcept {
  static const TileUnit state = ask();
  return state;
}

}  // namespace gradring
