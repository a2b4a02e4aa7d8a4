#include "table.h"

#if defined(DEEPSIM_AMX) && defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace deepsim::bf16 {
namespace {

bool detect() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool avx512 = (b >> 16 & 1) && (b >> 30 & 1) && (b >> 31 & 1);  // F, BW, VL
  const bool amx = (d >> 22 & 1) && (d >> 24 & 1);                      // BF16, TILE
  if (!avx512 || !amx || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return false;
  // Linux gives a process the tiles' state only when asked.
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

}  // namespace

bool amx_usable() {
  static const bool usable = detect();
  return usable;
}

}  // namespace deepsim::bf16

#else

namespace deepsim::bf16 {
bool amx_usable() { return false; }
}  // namespace deepsim::bf16

#endif
