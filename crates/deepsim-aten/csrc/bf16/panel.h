// The product of a packed left panel with a packed right one by AVX-512's bf16 instruction: what the
// kernels use in the place of tiles where there is no matrix unit.
//
// One instruction (vdpbf16ps) multiplies 16 pairs of a right operand's line by one pair of a left
// row, which is broadcast, and adds both products to 16 sums. A block of 14 rows and two lines takes
// 28 registers for its sums and leaves enough for the operands; each broadcast serves two
// instructions, so that the loads do not hold them up.
//
// The instruction multiplies exactly and adds the pair's products one after the other, the second
// one first; each addition is rounded to the nearest (ties to even) whatever MXCSR says. Denormal
// operands count as zeros, and denormal sums become zeros. The matrix unit rounds likewise, but adds
// in another order, and plain C++ in a third one, which keeps denormals: the codes agree within the
// rounding of fp32 sums where no value is below 2^-126, and so far the tests compare them.
#pragma once

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define DEEPSIM_PANELS 1
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "plan.h"

namespace deepsim::bf16 {
namespace {

// Rows of a block of sums.
constexpr int64_t PANEL_ROWS = 14;

inline __m512 add_pairs(__m512 sum, __m512i left, __m512i right) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
}
inline __m512i broadcast_pair(const void* at) {
  int32_t pair;
  __builtin_memcpy(&pair, at, sizeof pair);
  return _mm512_set1_epi32(pair);
}

// ROWS rows times COLUMNS lines of 16 sums. All indices are constants, so that the sums stay in
// registers.
template <int ROWS, int COLUMNS>
struct Block {
  __m512 sums[ROWS * COLUMNS];

  template <class F>
  static inline __attribute__((always_inline)) void each(const F& f) {
    each_row(f, std::make_integer_sequence<int, ROWS>());
  }
  template <class F, int... R>
  static inline __attribute__((always_inline)) void each_row(const F& f,
                                                             std::integer_sequence<int, R...>) {
    (f(std::integral_constant<int, R>()), ...);
  }

  inline __attribute__((always_inline)) void zero() {
    each([&](auto r) {
      sums[r * COLUMNS] = _mm512_setzero_ps();
      if constexpr (COLUMNS == 2) sums[r * COLUMNS + 1] = _mm512_setzero_ps();
    });
  }
  // Adds one pair of each row, STRIDE halves apart, times a line or two.
  template <int64_t STRIDE>
  inline __attribute__((always_inline)) void add(const Half* left, const Half* line,
                                                 const Half* second) {
    const __m512i a = _mm512_loadu_si512(line);
    __m512i b = a;
    if constexpr (COLUMNS == 2) b = _mm512_loadu_si512(second);
    each([&](auto r) {
      const __m512i pair = broadcast_pair(left + r * STRIDE);
      sums[r * COLUMNS] = add_pairs(sums[r * COLUMNS], pair, a);
      if constexpr (COLUMNS == 2) sums[r * COLUMNS + 1] = add_pairs(sums[r * COLUMNS + 1], pair, b);
    });
  }
};

// Calls f(std::integral_constant<int, rows>()) for 1 <= rows <= PANEL_ROWS.
template <int ROWS = PANEL_ROWS, class F>
inline void with_rows(int64_t rows, const F& f) {
  if constexpr (ROWS > 1) {
    if (rows < ROWS) return with_rows<ROWS - 1>(rows, f);
  }
  f(std::integral_constant<int, ROWS>());
}

// Blocks of nearly equal size that `all` rows are divided into: none is larger than PANEL_ROWS.
struct Blocks {
  int64_t all, count;
  explicit Blocks(int64_t n) : all(n), count((n + PANEL_ROWS - 1) / PANEL_ROWS) {}
  int64_t begin(int64_t block) const { return all * block / count; }
};

// A whole cache line further on than a buffer of halves begins at most.
inline Half* aligned(Half* p) {
  return reinterpret_cast<Half*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64);
}
constexpr int64_t LINE = 32;  // halves of a cache line

// Steps by which right operands are fetched into the first-level cache in advance.
constexpr int64_t PANEL_AHEAD = 2;

// A step that is multiplied: its place among the right operand's, and its pairs.
struct PanelStep {
  int32_t place, pairs;
};

// left [step][row][32 halves] times right [place][line of 16 columns][16 pairs][16][2] into rows of
// `stride` floats.
template <int ROWS, int COLUMNS>
__attribute__((noinline)) void panel_product(const Half* left, const Half* right,
                                             const PanelStep* steps, int64_t count, float* to,
                                             int64_t stride) {
  constexpr int64_t SIZE = COLUMNS * TILE * DEPTH;
  Block<ROWS, COLUMNS> block;
  block.zero();
  for (int64_t k = 0; k < count; ++k, left += ROWS * LINE) {
    const Half* lines = right + steps[k].place * SIZE;
    // Of the left operand the next step.
    for (int r = 0; r < ROWS; ++r) _mm_prefetch(left + (ROWS + r) * LINE, _MM_HINT_T0);
#pragma GCC unroll 4
    for (int64_t p = 0; p < steps[k].pairs; ++p) {
      const Half* line = lines + p * LINE;
      _mm_prefetch(line + PANEL_AHEAD * SIZE, _MM_HINT_T0);
      if constexpr (COLUMNS == 2)
        _mm_prefetch(line + PANEL_AHEAD * SIZE + TILE * LINE, _MM_HINT_T0);
      block.template add<LINE>(left + 2 * p, line, line + TILE * LINE);
    }
  }
  Block<ROWS, COLUMNS>::each([&](auto r) {
    for (int c = 0; c < COLUMNS; ++c)
      _mm512_storeu_ps(to + r * stride + c * TILE, block.sums[r * COLUMNS + c]);
  });
}

// A pair of positions that is multiplied: halves before it in the left and in the right operand.
struct PanelPair {
  int64_t left, right;
};

// Adds pairs of left [pair][16][2], of which the first ROWS are used, times lines of `right` and of
// `right` + `second` to `sums[row]`: a line, and the next one `beside` floats further on.
template <int ROWS, int COLUMNS>
__attribute__((noinline)) void panel_add(const Half* left, const Half* right, int64_t second,
                                         const PanelPair* pairs, int64_t count, float* const* sums,
                                         int64_t beside) {
  Block<ROWS, COLUMNS> block;
  Block<ROWS, COLUMNS>::each([&](auto r) {
    for (int c = 0; c < COLUMNS; ++c)
      block.sums[r * COLUMNS + c] = _mm512_loadu_ps(sums[r] + c * beside);
  });
#pragma GCC unroll 2
  for (const PanelPair* p = pairs; p < pairs + count; ++p)
    block.template add<2>(left + p->left, right + p->right, right + second + p->right);
  Block<ROWS, COLUMNS>::each([&](auto r) {
    for (int c = 0; c < COLUMNS; ++c)
      _mm512_storeu_ps(sums[r] + c * beside, block.sums[r * COLUMNS + c]);
  });
}

}  // namespace
}  // namespace deepsim::bf16

#endif
