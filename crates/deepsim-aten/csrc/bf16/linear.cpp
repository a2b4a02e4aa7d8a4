// Compiled once for each instruction set.
#include "linear.h"

#include "tiles.h"
#include "vector.h"

namespace deepsim::bf16 {
namespace {

constexpr int64_t MOST = 4;  // tiles of the batch that are multiplied at once

void signed_rows(const Half* from, const Half* sign, float slope, int64_t rows, int64_t width, Half* to) {
  const int64_t wide = round_up(width, DEPTH);
  for (int64_t r = 0; r < round_up(rows, TILE); ++r, to += wide) {
    std::memset(to, 0, static_cast<size_t>(wide) * sizeof(Half));
    if (r >= rows) continue;
    if (sign)
      convert<false, true>(to, from, r * width, sign, slope, width);
    else
      convert<false, false>(to, from, r * width, nullptr, slope, width);
  }
}

void rows(const Half* from, int64_t rows, int64_t width, Half* to) {
  signed_rows(from, nullptr, 1, rows, width, to);
}

void round_rows(const float* from, int64_t rows, int64_t width, Half* to) {
  const int64_t wide = round_up(width, DEPTH);
  for (int64_t r = 0; r < round_up(rows, TILE); ++r, to += wide) {
    std::memset(to, 0, static_cast<size_t>(wide) * sizeof(Half));
    if (r < rows) convert<true, false>(to, from, r * width, nullptr, 1, width);
  }
}

void columns(const Half* from, int64_t rows, int64_t width, Half* to) {
  for (int64_t k = 0; k < width; k += DEPTH)
    for (int64_t r = 0; r < rows; r += TILE, to += TILE * DEPTH) {
      if (r + TILE <= rows && k + DEPTH <= width) {
        // Whole tiles: two values at a time.
        for (int64_t i = 0; i < TILE; ++i)
          for (int64_t e = 0; e < DEPTH; e += 2)
            std::memcpy(to + e / 2 * DEPTH + 2 * i, from + (r + i) * width + k + e, 2 * sizeof(Half));
        continue;
      }
      for (int64_t i = 0; i < TILE; ++i)
        for (int64_t e = 0; e < DEPTH; ++e)
          to[e / 2 * DEPTH + 2 * i + e % 2] =
              r + i < rows && k + e < width ? from[(r + i) * width + k + e] : Half{0};
    }
}

void pairs_of_rows(const Half* from, int64_t rows, int64_t width, Half* to) {
  for (int64_t c = 0; c < width; c += TILE)
    for (int64_t r = 0; r < round_up(rows, DEPTH); r += 2, to += DEPTH) {
#if defined(__AVX512BF16__)
      if (r + 1 < rows) {
        const Half* row = from + r * width + c;
        _mm512_storeu_si512(to, pairs(row, row + width, first_lanes(width - c)));
        continue;
      }
#endif
      for (int64_t i = 0; i < TILE; ++i)
        for (int64_t half = 0; half < 2; ++half)
          to[2 * i + half] = c + i < width && r + half < rows ? from[(r + half) * width + c + i] : Half{0};
    }
}

void turned(const Half* from, int64_t rows, int64_t width, Half* to) {
  const int64_t wide = round_up(rows, DEPTH);
  for (int64_t c = 0; c < round_up(width, TILE); ++c)
    for (int64_t r = 0; r < wide; ++r)
      *to++ = c < width && r < rows ? from[r * width + c] : Half{0};
}

// Products of one left operand with up to four right ones.
inline void multiply(const Half* left, int64_t left_bytes, const Half* right, int64_t n) {
  TILE_LOAD(4, left, left_bytes);
  TILE_LOAD(5, right, 64);
  TILE_PRODUCT(0, 4, 5);
  if (n > 1) {
    TILE_LOAD(6, right + TILE * DEPTH, 64);
    TILE_PRODUCT(1, 4, 6);
  }
  if (n > 2) {
    TILE_LOAD(7, right + 2 * TILE * DEPTH, 64);
    TILE_PRODUCT(2, 4, 7);
  }
  if (n > 3) {
    TILE_LOAD(5, right + 3 * TILE * DEPTH, 64);
    TILE_PRODUCT(3, 4, 5);
  }
}
// Products of up to four left operands, `below` halves apart, with one right one.
inline void multiply_down(const Half* left, int64_t left_bytes, int64_t below, const Half* right,
                          int64_t n) {
  TILE_LOAD(4, right, 64);
  TILE_LOAD(5, left, left_bytes);
  TILE_PRODUCT(0, 5, 4);
  if (n > 1) {
    TILE_LOAD(6, left + below, left_bytes);
    TILE_PRODUCT(1, 6, 4);
  }
  if (n > 2) {
    TILE_LOAD(7, left + 2 * below, left_bytes);
    TILE_PRODUCT(2, 7, 4);
  }
  if (n > 3) {
    TILE_LOAD(5, left + 3 * below, left_bytes);
    TILE_PRODUCT(3, 5, 4);
  }
}
inline void zero_sums() {
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
}
inline void store_sums(float (*sums)[TILE][TILE]) {
  TILE_STORE(0, sums[0], 64);
  TILE_STORE(1, sums[1], 64);
  TILE_STORE(2, sums[2], 64);
  TILE_STORE(3, sums[3], 64);
}

void forward(const Linear& l, const Half* x, const float* weight, const Half* packed,
             const float* bias, float slope, Half* y, int64_t from, int64_t to) {
  [[maybe_unused]] const Tiles tiles;
  const int64_t steps = l.input_steps(), all = l.batch_tiles(), wide = steps * DEPTH;
  alignas(64) Half tile[TILE * DEPTH];
  alignas(64) float sums[MOST][TILE][TILE];
  for (int64_t o = from * TILE; o < to * TILE; o += TILE)
    for (int64_t b = 0; b < all; b += MOST) {
      const int64_t n = std::min(MOST, all - b), outs = std::min<int64_t>(TILE, l.outputs - o);
      memory_barrier();
      zero_sums();
      for (int64_t k = 0; k < steps; ++k) {
        const Half* right = x + (k * all + b) * TILE * DEPTH;
        if (packed) {
          multiply(packed + o * wide + k * DEPTH, wide * 2, right, n);
          continue;
        }
        const int64_t width = std::min<int64_t>(DEPTH, l.inputs - k * DEPTH);
        if (width < DEPTH || outs < TILE) std::memset(tile, 0, sizeof tile);
        for (int64_t r = 0; r < outs; ++r)
          convert<true, false>(tile + r * DEPTH, weight, (o + r) * l.inputs + k * DEPTH, nullptr, 1,
                               width);
        memory_barrier();
        multiply(tile, 64, right, n);
      }
      store_sums(sums);
      for (int64_t t = 0; t < n; ++t)
        for (int64_t i = 0; i < std::min<int64_t>(TILE, l.batch - (b + t) * TILE); ++i)
          for (int64_t r = 0; r < outs; ++r) {
            float v = sums[t][r][i] + (bias ? bias[o + r] : 0.0f);
            if (slope != 1 && !(v > 0)) v = slope == 0 && v == v ? 0 : v * slope;
            y[((b + t) * TILE + i) * l.outputs + o + r] = to_half(v);
          }
    }
}

// Outputs [k * DEPTH, (k + 1) * DEPTH) of `ins` <= TILE inputs from c on as a right operand.
inline void weight_tile(const Linear& l, const float* weight, int64_t k, int64_t c, int64_t ins,
                        Half* tile) {
  for (int64_t r = 0; r < DEPTH; r += 2) {
    const int64_t o = k * DEPTH + r;
    const float* one = weight + o * l.inputs + c;
#if defined(__AVX512BF16__)
    const __mmask16 m = first_lanes(ins), none = 0;
    const __m512 a = _mm512_maskz_loadu_ps(o < l.outputs ? m : none, one);
    const __m512 d = _mm512_maskz_loadu_ps(o + 1 < l.outputs ? m : none, one + l.inputs);
    const __m512i low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a)));
    const __m512i high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(d)));
    _mm512_store_si512(tile + r * TILE, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
#else
    for (int64_t i = 0; i < TILE; ++i) {
      tile[r * TILE + 2 * i] = i < ins && o < l.outputs ? to_half(one[i]) : Half{0};
      tile[r * TILE + 2 * i + 1] = i < ins && o + 1 < l.outputs ? to_half(one[l.inputs + i]) : Half{0};
    }
#endif
  }
}

#if !defined(DEEPSIM_PANELS)

void to_inputs(const Linear& l, const Half* dy, const float* weight, Half* dx, int64_t from,
               int64_t to) {
  [[maybe_unused]] const Tiles tiles;
  const int64_t steps = l.output_steps(), all = l.batch_tiles(), wide = steps * DEPTH;
  alignas(64) Half tile[TILE * DEPTH];
  alignas(64) float sums[MOST][TILE][TILE];
  for (int64_t c = from * TILE; c < to * TILE; c += TILE)
    for (int64_t b = 0; b < all; b += MOST) {
      const int64_t n = std::min(MOST, all - b), ins = std::min<int64_t>(TILE, l.inputs - c);
      memory_barrier();
      zero_sums();
      for (int64_t k = 0; k < steps; ++k) {
        weight_tile(l, weight, k, c, ins, tile);
        memory_barrier();
        multiply_down(dy + b * TILE * wide + k * DEPTH, wide * 2, TILE * wide, tile, n);
      }
      store_sums(sums);
      for (int64_t t = 0; t < n; ++t)
        for (int64_t i = 0; i < std::min<int64_t>(TILE, l.batch - (b + t) * TILE); ++i)
          convert<true, false>(dx + ((b + t) * TILE + i) * l.inputs + c, sums[t][i], 0, nullptr, 1, ins);
    }
}

#else

// Rows of weights lie far apart: a kilobyte of each is read at once. The sums stay in the second-level
// cache.
void to_inputs(const Linear& l, const Half* dy, const float* weight, Half* dx, int64_t from,
               int64_t to) {
  constexpr int64_t WIDE = 16;
  const int64_t steps = l.output_steps(), all = l.batch_tiles(), wide = steps * DEPTH;
  alignas(64) Half tiles[WIDE][TILE * DEPTH];
  alignas(64) float sums[WIDE][MOST][TILE][TILE];
  for (int64_t first = from; first < to; first += WIDE)
    for (int64_t b = 0; b < all; b += MOST) {
      const int64_t n = std::min(MOST, all - b), some = std::min(WIDE, to - first);
      const auto inputs = [&](int64_t i) {
        return std::min<int64_t>(TILE, l.inputs - (first + i) * TILE);
      };
      std::memset(sums, 0, sizeof sums);
      for (int64_t k = 0; k < steps; ++k) {
        for (int64_t i = 0; i < some; ++i)
          weight_tile(l, weight, k, (first + i) * TILE, inputs(i), tiles[i]);
        for (int64_t t = 0; t < n; ++t)
          for (int64_t i = 0; i < some; ++i)
            multiply_tile(dy + (b + t) * TILE * wide + k * DEPTH, wide * 2, tiles[i], 64,
                          sums[i][t]);
      }
      for (int64_t i = 0; i < some; ++i)
        for (int64_t t = 0; t < n; ++t)
          for (int64_t r = 0; r < std::min<int64_t>(TILE, l.batch - (b + t) * TILE); ++r)
            convert<true, false>(dx + ((b + t) * TILE + r) * l.inputs + (first + i) * TILE,
                                 sums[i][t][r], 0, nullptr, 1, inputs(i));
    }
}

#endif

void to_weights(const Linear& l, const Half* dy, const Half* x, float* dw, int64_t from, int64_t to) {
  [[maybe_unused]] const Tiles tiles;
  const int64_t steps = l.batch_steps(), wide = steps * DEPTH;
  alignas(64) float sums[MOST][TILE][TILE];
  for (int64_t o = from * TILE; o < to * TILE; o += TILE)
    for (int64_t c = 0; c < l.input_tiles(); c += MOST) {
      const int64_t n = std::min(MOST, l.input_tiles() - c);
      const int64_t outs = std::min<int64_t>(TILE, l.outputs - o);
      memory_barrier();
      zero_sums();
      for (int64_t k = 0; k < steps; ++k) {
        const Half* right = x + (c * steps + k) * TILE * DEPTH;
        TILE_LOAD(4, dy + o * wide + k * DEPTH, wide * 2);
        TILE_LOAD(5, right, 64);
        TILE_PRODUCT(0, 4, 5);
        if (n > 1) {
          TILE_LOAD(6, right + steps * TILE * DEPTH, 64);
          TILE_PRODUCT(1, 4, 6);
        }
        if (n > 2) {
          TILE_LOAD(7, right + 2 * steps * TILE * DEPTH, 64);
          TILE_PRODUCT(2, 4, 7);
        }
        if (n > 3) {
          TILE_LOAD(5, right + 3 * steps * TILE * DEPTH, 64);
          TILE_PRODUCT(3, 4, 5);
        }
      }
      float* at = dw + o * l.inputs + c * TILE;
      if (outs == TILE && (c + MOST) * TILE <= l.inputs) {
        TILE_STORE(0, at, l.inputs * 4);
        TILE_STORE(1, at + TILE, l.inputs * 4);
        TILE_STORE(2, at + 2 * TILE, l.inputs * 4);
        TILE_STORE(3, at + 3 * TILE, l.inputs * 4);
        continue;
      }
      store_sums(sums);
      for (int64_t t = 0; t < n; ++t)
        for (int64_t r = 0; r < outs; ++r)
          std::memcpy(at + r * l.inputs + t * TILE, sums[t][r],
                      static_cast<size_t>(std::min<int64_t>(TILE, l.inputs - (c + t) * TILE)) * 4);
    }
}

}  // namespace

const LinearKernels* DEEPSIM_TABLE(linear)() {
  static const LinearKernels table{rows,  signed_rows, columns,   pairs_of_rows, turned,
                                   round_rows, forward,     to_inputs, to_weights};
  return &table;
}

}  // namespace deepsim::bf16
