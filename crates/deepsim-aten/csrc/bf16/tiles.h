// Eight tiles: four sums (0 to 3), two left operands (4, 5) and two right ones (6, 7); AMX where it
// is compiled for, otherwise AVX-512's bf16 instruction, otherwise the same arithmetic in plain C++.
#pragma once
#include <cstdint>
#include <cstring>

#include "panel.h"
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

#elif defined(DEEPSIM_PANELS)

// Sums stay in the first-level cache. Operands are read where they stand, when they are multiplied:
// nobody may change them between loading and multiplying.
struct Tiles {};
inline thread_local struct {
  alignas(64) float sums[4][TILE][TILE];
  struct {
    const char* at;
    int64_t stride;
  } operands[4];
} held;

inline void held_zero(int t) { std::memset(held.sums[t], 0, sizeof held.sums[t]); }
inline void held_load(int t, const void* from, int64_t stride) {
  if (t >= 4) {
    held.operands[t - 4] = {static_cast<const char*>(from), stride};
    return;
  }
  for (int r = 0; r < TILE; ++r)
    std::memcpy(held.sums[t][r], static_cast<const char*>(from) + r * stride, 64);
}
inline void held_store(int t, void* to, int64_t stride) {
  for (int r = 0; r < TILE; ++r)
    std::memcpy(static_cast<char*>(to) + r * stride, held.sums[t][r], 64);
}
// A tile of sums in registers: sixteen that do not wait for each other.
inline void multiply_tile(const void* left_at, int64_t left_bytes, const void* right_at,
                          int64_t right_bytes, float (*sums)[TILE]) {
  const auto *left = static_cast<const char*>(left_at), *right = static_cast<const char*>(right_at);
  using Sums = Block<TILE, 1>;
  Sums block;
  Sums::each([&](auto r) { block.sums[r] = _mm512_load_ps(sums[r]); });
  for (int64_t p = 0; p < DEPTH / 2; ++p, right += right_bytes, left += 2 * sizeof(Half)) {
    const __m512i line = _mm512_loadu_si512(right);
    Sums::each([&](auto r) {
      block.sums[r] = add_pairs(block.sums[r], broadcast_pair(left + r * left_bytes), line);
    });
  }
  Sums::each([&](auto r) { _mm512_store_ps(sums[r], block.sums[r]); });
}
inline void held_product(int sum, int a, int b) {
  const auto &left = held.operands[a - 4], &right = held.operands[b - 4];
  multiply_tile(left.at, left.stride, right.at, right.stride, held.sums[sum]);
}
inline void memory_barrier() {}
inline void prefetch(const Half* from, int64_t halves) {
  for (int64_t i = 0; i < halves; i += LINE) _mm_prefetch(from + i, _MM_HINT_T0);
}
inline void fetch_soon(const Half* from, int64_t halves) {
  for (int64_t i = 0; i < halves; i += LINE) _mm_prefetch(from + i, _MM_HINT_T1);
}

#define TILE_ZERO(t) held_zero(t)
#define TILE_LOAD(t, from, stride) held_load(t, from, stride)
#define TILE_STORE(t, to, stride) held_store(t, to, stride)
#define TILE_PRODUCT(sum, a, b) held_product(sum, a, b)

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
