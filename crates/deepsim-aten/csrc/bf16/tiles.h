// Eight tiles: four sums (0 to 3), two left operands (4, 5) and two right ones (6, 7); AMX where it
// is compiled for, otherwise the same arithmetic in plain C++.
#pragma once
#include <cstdint>
#include <cstring>

#include "plan.h"

#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

namespace deepsim::bf16 {
namespace {

#if defined(__AMX_BF16__)

#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, stride) _tile_loadd(t, from, stride)
#define TILE_STORE(t, to, stride) _tile_stored(t, to, stride)
#define TILE_PRODUCT(sum, a, b) _tile_dpbf16ps(sum, a, b)

// The intrinsics do not tell the compiler that they read memory.
inline void memory_barrier() { __asm__ volatile("" ::: "memory"); }
inline void reads(const void* p) { __asm__ volatile("" ::"r"(p) : "memory"); }

inline void prefetch(const Half* from, int64_t halves) {
  for (int64_t i = 0; i < halves; i += 32) _mm_prefetch(from + i, _MM_HINT_T0);
}

// The same into the second-level cache.
inline void fetch_soon(const Half* from, int64_t halves) {
  for (int64_t i = 0; i < halves; i += 32) _mm_prefetch(from + i, _MM_HINT_T1);
}

// Sets the tiles up, and leaves them as they were found: oneDNN's kernels run on the same threads
// and remember what they set up last.
class Tiles {
 public:
  Tiles() {
    _tile_storeconfig(&before_);
    memory_barrier();
    Config mine{};
    mine.palette = 1;
    for (int t = 0; t < 8; ++t) {
      mine.bytes[t] = 64;
      mine.rows[t] = TILE;
    }
    reads(&mine);
    _tile_loadconfig(&mine);
  }
  ~Tiles() {
    reads(&before_);
    if (before_.palette)
      _tile_loadconfig(&before_);
    else
      _tile_release();
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  struct alignas(64) Config {
    uint8_t palette, start;
    uint8_t reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };
  Config before_{};
};

#else

struct Tiles {};
inline thread_local struct {
  float sums[4][TILE][TILE];
  Half operands[4][TILE][DEPTH];
} emulated;

inline float widened(Half h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline void* emulated_row(int t, int row) {
  return t < 4 ? static_cast<void*>(emulated.sums[t][row])
               : static_cast<void*>(emulated.operands[t - 4][row]);
}
inline void emulated_zero(int t) { std::memset(emulated.sums[t], 0, sizeof emulated.sums[t]); }
inline void emulated_load(int t, const void* from, int64_t stride) {
  for (int r = 0; r < TILE; ++r)
    std::memcpy(emulated_row(t, r), static_cast<const char*>(from) + r * stride, 64);
}
inline void emulated_store(int t, void* to, int64_t stride) {
  for (int r = 0; r < TILE; ++r)
    std::memcpy(static_cast<char*>(to) + r * stride, emulated_row(t, r), 64);
}
inline void emulated_product(int sum, int a, int b) {
  for (int r = 0; r < TILE; ++r)
    for (int k = 0; k < DEPTH; ++k) {
      const float left = widened(emulated.operands[a - 4][r][k]);
      for (int c = 0; c < TILE; ++c)
        emulated.sums[sum][r][c] +=
            left * widened(emulated.operands[b - 4][k / 2][2 * c + k % 2]);
    }
}
inline void memory_barrier() {}
inline void prefetch(const Half*, int64_t) {}
inline void fetch_soon(const Half*, int64_t) {}

#define TILE_ZERO(t) emulated_zero(t)
#define TILE_LOAD(t, from, stride) emulated_load(t, from, stride)
#define TILE_STORE(t, to, stride) emulated_store(t, to, stride)
#define TILE_PRODUCT(sum, a, b) emulated_product(sum, a, b)

#endif

}  // namespace
}  // namespace deepsim::bf16
