#include "table.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace deepsim::bf16 {
namespace {

#if defined(DEEPSIM_AVX512_BF16) && defined(__x86_64__)

bool detect_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return false;  // OSXSAVE
  // The system saves the registers of SSE, AVX and AVX-512.
  constexpr unsigned STATE = 0xe6;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & STATE) != STATE) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool avx512 = (b >> 16 & 1) && (b >> 30 & 1) && (b >> 31 & 1);  // F, BW, VL
  return avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

#else
bool detect_avx512_bf16() { return false; }
#endif

#if defined(DEEPSIM_AMX) && defined(__x86_64__) && defined(__linux__)

bool detect_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!avx512_bf16_usable() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d >> 22 & 1) || !(d >> 24 & 1)) return false;  // BF16, TILE
  // Linux gives a process the tiles' state only when asked.
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

#else
bool detect_amx() { return false; }
#endif

}  // namespace

// Intel's processors begin one every other cycle and two fp32 ones in each: half the products of fp32
// in the same time (those that have AMX need it least). AMD's begin one each cycle, which is twice
// the products of fp32 where they begin one of these each cycle too.
bool avx512_bf16_fast() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned GENU = 0x756e6547;  // the beginning of GenuineIntel
  return avx512_bf16_usable() && __get_cpuid(0, &a, &b, &c, &d) && b != GENU;
#else
  return false;
#endif
}

bool avx512_bf16_usable() {
  static const bool usable = detect_avx512_bf16();
  return usable;
}

bool amx_usable() {
  static const bool usable = detect_amx();
  return usable;
}

}  // namespace deepsim::bf16
