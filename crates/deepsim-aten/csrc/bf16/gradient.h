// Part of kernel.cpp: the gradient of the weights.
#pragma once
#include "kernel.h"
#include "panel.h"
#include "tiles.h"
#include "vector.h"

namespace deepsim::bf16 {
namespace {

int64_t pairs_of(const WeightGradient& w, int64_t count) { return w.big.span(count) / 2 + 1; }

// [positions][channels] -> [column tile][pair of positions][column][2].
void paired(const Half* from, int64_t positions, int64_t channels, int64_t count, Half* to) {
  for (int64_t c = 0; c < channels; c += TILE) {
    const int64_t n = std::min<int64_t>(TILE, channels - c);
    for (int64_t p = 0; p < 2 * count; p += 2, to += DEPTH) {
      const bool one = p < positions, both = p + 1 < positions;
      const Half* row = from + p * channels + c;
#if defined(__AVX512BF16__)
      __m512i v = _mm512_setzero_si512();
      if (one) v = pairs(row, both ? row + channels : row, first_lanes(n));
      if (one && !both) v = _mm512_and_si512(v, _mm512_set1_epi32(0xffff));
      _mm512_storeu_si512(to, v);
#else
      for (int64_t i = 0; i < TILE; ++i) {
        to[2 * i] = i < n && one ? row[i] : Half{0};
        to[2 * i + 1] = i < n && both ? row[channels + i] : Half{0};
      }
#endif
    }
  }
}

#if !defined(DEEPSIM_PANELS)

// Halves from one channel's row of positions to the next: an odd number of cache lines, so that
// the rows of a tile do not meet in the same cache set.
int64_t row_halves(int64_t positions) {
  const int64_t lines = (positions + DEPTH - 1) / DEPTH;
  return (lines + (lines % 2 == 0)) * DEPTH;
}
constexpr int64_t BLOCK = 2048;  // positions that are summed up before the sums are stored

int64_t steps_of(const WeightGradient& w, int64_t count) {
  return (count * w.small.positions() + DEPTH - 1) / DEPTH;
}
int64_t row_of(const WeightGradient& w, int64_t count) {
  return row_halves(steps_of(w, count) * DEPTH);
}
int64_t work(const WeightGradient& w, int64_t count) {
  return w.row_tiles() * TILE * row_of(w, count) +
         w.big.planes() * 2 * w.column_tiles() * pairs_of(w, count) * DEPTH;
}

// [positions][channels] -> [channel][positions], rows of `row` halves, channels filled up to tiles.
void transposed(const Half* from, int64_t positions, int64_t channels, int64_t row, Half* to) {
  for (int64_t c = 0; c < channels; c += TILE) {
    const int64_t n = std::min<int64_t>(TILE, channels - c);
    for (int64_t p = 0; p < row; p += DEPTH) {
      Half* at = to + c * row + p;
#if defined(__AVX512BF16__)
      const __mmask16 m = first_lanes(n);
      const Half* source = from + p * channels + c;
      __m512i r[16];
      for (int i = 0; i < 16; ++i) {
        const bool one = p + 2 * i < positions, both = p + 2 * i + 1 < positions;
        const Half* s = source + 2 * i * channels;
        r[i] = one ? pairs(s, both ? s + channels : s, m) : _mm512_setzero_si512();
        if (one && !both) r[i] = _mm512_and_si512(r[i], _mm512_set1_epi32(0xffff));
      }
      transpose(r);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(at + i * row, r[i]);
#else
      for (int64_t i = 0; i < TILE; ++i)
        for (int64_t j = 0; j < DEPTH; ++j)
          at[i * row + j] = i < n && p + j < positions ? from[(p + j) * channels + c + i] : Half{0};
#endif
    }
  }
}

// Adds left [16 * ROW_TILES rows][steps * 32] times right [column tile][steps * 16 pairs] to tiles of sums.
template <int ROW_TILES, int COLUMNS>
inline void add_product(const Half* left, int64_t row, const Half* right, int64_t next_column,
                        int64_t steps, float* sums, int64_t next_row) {
  constexpr int64_t SIZE = TILE * TILE;
  memory_barrier();
  TILE_LOAD(0, sums, 64);
  if constexpr (COLUMNS == 2) TILE_LOAD(1, sums + SIZE, 64);
  if constexpr (ROW_TILES == 2) {
    TILE_LOAD(2, sums + next_row, 64);
    if constexpr (COLUMNS == 2) TILE_LOAD(3, sums + next_row + SIZE, 64);
  }
  for (int64_t k = 0; k < steps; ++k) {
    TILE_LOAD(4, left, row * 2);
    TILE_LOAD(6, right, 64);
    TILE_PRODUCT(0, 4, 6);
    if constexpr (COLUMNS == 2) {
      TILE_LOAD(7, right + next_column, 64);
      TILE_PRODUCT(1, 4, 7);
    }
    if constexpr (ROW_TILES == 2) {
      TILE_LOAD(5, left + TILE * row, row * 2);
      TILE_PRODUCT(2, 5, 6);
      if constexpr (COLUMNS == 2) TILE_PRODUCT(3, 5, 7);
    }
    left += DEPTH;
    right += TILE * DEPTH;
  }
  TILE_STORE(0, sums, 64);
  if constexpr (COLUMNS == 2) TILE_STORE(1, sums + SIZE, 64);
  if constexpr (ROW_TILES == 2) {
    TILE_STORE(2, sums + next_row, 64);
    if constexpr (COLUMNS == 2) TILE_STORE(3, sums + next_row + SIZE, 64);
  }
}

void gradient(const WeightGradient& w, const Half* big, const Half* small, int64_t count, Half* work,
              float* sums) {
  [[maybe_unused]] const Tiles tiles;
  const int64_t row = row_of(w, count), span = w.big.span(count), steps = steps_of(w, count);
  const int64_t rows = w.row_tiles(), columns = w.column_tiles(), planes = w.big.planes();
  const int64_t positions = count * w.small.positions();
  const int64_t next = pairs_of(w, count) * DEPTH, below = columns * TILE * TILE;
  // Blocks of nearly equal length: a short one costs as much around its products as a long one.
  const int64_t blocks = std::max<int64_t>(1, (steps * DEPTH + BLOCK / 2) / BLOCK);
  Half* left = work;
  Half* right = work + rows * TILE * row;
  for (int64_t g = 0; g < w.big.groups; ++g) {
    transposed(small, positions, w.small.channels, row, left);
    small += positions * w.small.channels;
    // Pairs that begin at even positions and pairs that begin at odd ones: whatever a tap's shift,
    // its operands are whole cache lines.
    for (int64_t p = 0; p < planes; ++p, big += span * w.big.channels)
      for (int64_t odd = 0; odd < 2; ++odd)
        paired(big + odd * w.big.channels, span - odd, w.big.channels, pairs_of(w, count),
               right + (2 * p + odd) * columns * next);
    for (int64_t block = 0, q = 0; q < steps; ++block) {
      const int64_t n = steps * (block + 1) / blocks - q;
      for (int64_t r = 0; r < rows; r += 2)
        for (size_t tap = 0; tap < w.taps.size(); ++tap) {
          const auto& t = w.taps[tap];
          const Half* from = left + r * TILE * row + q * DEPTH;
          const Half* plane = right + (2 * t.plane + t.shift % 2) * columns * next +
                              (q * DEPTH + t.shift) / 2 * DEPTH;
          for (int64_t c = 0; c < columns; c += 2) {
            const Half* at = plane + c * next;
            float* to = sums + ((static_cast<int64_t>(tap) * rows + r) * columns + c) * TILE * TILE;
            const bool two = r + 1 < rows, wide = c + 1 < columns;
            if (two && wide)
              add_product<2, 2>(from, row, at, next, n, to, below);
            else if (two)
              add_product<2, 1>(from, row, at, next, n, to, below);
            else if (wide)
              add_product<1, 2>(from, row, at, next, n, to, below);
            else
              add_product<1, 1>(from, row, at, next, n, to, below);
          }
        }
      q += n;
    }
    sums += w.sums();
  }
}

#else

// Pairs of the small map's positions that are summed up before the sums are stored: the left
// operand of a block stays in the first-level cache.
constexpr int64_t BLOCK = 384;

// Rows by which taps are shifted.
struct Rows {
  int64_t least, count;
  explicit Rows(const WeightGradient& w) {
    int64_t most = least = w.taps.empty() ? 0 : w.taps[0].y;
    for (const auto& tap : w.taps) {
      least = std::min(least, tap.y);
      most = std::max(most, tap.y);
    }
    count = most - least + 1;
  }
};

// A pair of positions of the small map, or the last one of a row alone.
struct Pair {
  int64_t position;
  int32_t row;
  bool both;
};

// Pairs of each row, which begin where the row does: zeros between rows and images have no place.
int64_t places(const WeightGradient& w, int64_t count, Pair* out) {
  int64_t n = 0;
  for (int64_t image = 0; image < count; ++image)
    for (int64_t y = 0; y < w.small_height; ++y) {
      const int64_t row = (image * w.small.height + y) * w.small.width;
      for (int64_t x = 0; x < w.small_width; x += 2)
        out[n++] = {row + x, static_cast<int32_t>(y), x + 1 < w.small_width};
    }
  return n;
}
int64_t most_places(const WeightGradient& w, int64_t count) {
  return count * w.small_height * ((w.small_width + 1) / 2);
}

// What a tap multiplies that is shifted by `shift` rows and by an odd number of positions or not:
// pairs that begin at odd positions of the big map lie `odd_ones` halves further on. Places that
// meet zeros above or below the big map are left out.
int64_t places_of(const WeightGradient& w, int64_t shift, int64_t odd, int64_t odd_ones,
                  const Pair* places, int64_t all, PanelPair* out) {
  int64_t n = 0;
  for (int64_t i = 0; i < all; ++i) {
    const int64_t y = places[i].row + shift, at = places[i].position + odd;
    if (y < 0 || y >= w.big.data_height) continue;
    out[n++] = {i * LINE, at % 2 * odd_ones + at / 2 * LINE};
  }
  return n;
}

// Room for the left operand, the right one, places, those of each shift, and the beginning of a
// cache line.
int64_t work(const WeightGradient& w, int64_t count) {
  const auto bytes = static_cast<int64_t>(sizeof(Pair)) +
                     2 * Rows(w).count * static_cast<int64_t>(sizeof(PanelPair));
  return (Blocks(w.rows).count * most_places(w, count) +
          w.big.planes() * 2 * w.column_tiles() * pairs_of(w, count) + 1) *
             LINE +
         most_places(w, count) * bytes / static_cast<int64_t>(sizeof(Half));
}

// [positions][channels] -> [block of channels][place][16][2].
void paired_rows(const Half* from, int64_t channels, const Pair* places, int64_t count, Half* to) {
  const Blocks blocks(channels);
  for (int64_t b = 0; b < blocks.count; ++b) {
    const int64_t c = blocks.begin(b);
    const __mmask16 m = first_lanes(blocks.begin(b + 1) - c);
    for (int64_t i = 0; i < count; ++i, to += LINE) {
      const Half* row = from + places[i].position * channels + c;
      __m512i v = pairs(row, places[i].both ? row + channels : row, m);
      if (!places[i].both) v = _mm512_and_si512(v, _mm512_set1_epi32(0xffff));
      _mm512_store_si512(to, v);
    }
  }
}

// Places of one kind of shift that are multiplied in a pass.
struct Some {
  const PanelPair* pairs;
  int64_t begin, end, all;
};

// All taps and columns for ROWS rows from `row` on.
template <int ROWS>
void gradient_rows(const WeightGradient& w, const Half* left, const Half* right, int64_t next,
                   const Some* of_shift, int64_t row, float* sums) {
  constexpr int64_t SIZE = TILE * TILE;
  const int64_t columns = w.column_tiles(), least = Rows(w).least;
  float* to[ROWS];
  for (size_t tap = 0; tap < w.taps.size(); ++tap) {
    const auto& t = w.taps[tap];
    const Half* plane = right + 2 * t.plane * columns * next + t.shift / 2 * LINE;
    const int64_t first = static_cast<int64_t>(tap) * w.row_tiles();
    const Some& some = of_shift[2 * (t.y - least) + t.shift % 2];
    const PanelPair* pairs = some.pairs + some.begin;
    const int64_t n = some.end - some.begin;
    for (int64_t c = 0; n && c < columns; c += 2) {
      for (int64_t r = 0; r < ROWS; ++r)
        to[r] = sums + ((first + (row + r) / TILE) * columns + c) * SIZE + (row + r) % TILE * TILE;
      if (c + 1 < columns)
        panel_add<ROWS, 2>(left, plane + c * next, next, pairs, n, to, SIZE);
      else
        panel_add<ROWS, 1>(left, plane + c * next, next, pairs, n, to, SIZE);
    }
  }
}

void gradient(const WeightGradient& w, const Half* big, const Half* small, int64_t count, Half* work,
              float* sums) {
  const int64_t span = w.big.span(count), positions = count * w.small.positions();
  const int64_t columns = w.column_tiles(), planes = w.big.planes();
  const int64_t next = pairs_of(w, count) * DEPTH, most = most_places(w, count);
  const Blocks blocks(w.rows);
  const Rows shifts(w);
  Half* left = aligned(work);
  Half* right = left + blocks.count * most * LINE;
  auto* pairs = reinterpret_cast<PanelPair*>(right + planes * 2 * columns * next);
  auto* at = reinterpret_cast<Pair*>(pairs + 2 * shifts.count * most);
  const int64_t all = places(w, count, at);
  const int64_t kinds = 2 * shifts.count;
  Buffer<Some> of_shift(kinds);
  for (int64_t s = 0; s < kinds; ++s, pairs += most)
    of_shift[s] = {pairs, 0, 0,
                   places_of(w, shifts.least + s / 2, s % 2, columns * next, at, all, pairs)};
  const int64_t passes = std::max<int64_t>(1, (all + BLOCK / 2) / BLOCK);
  for (int64_t g = 0; g < w.big.groups; ++g) {
    paired_rows(small, w.small.channels, at, all, left);
    small += positions * w.small.channels;
    // As for tiles: whatever a tap's shift, its operands are whole cache lines.
    for (int64_t p = 0; p < planes; ++p, big += span * w.big.channels)
      for (int64_t odd = 0; odd < 2; ++odd)
        paired(big + odd * w.big.channels, span - odd, w.big.channels, pairs_of(w, count),
               right + (2 * p + odd) * columns * next);
    for (int64_t s = 0; s < kinds; ++s) of_shift[s].end = 0;
    for (int64_t pass = 0; pass < passes; ++pass) {
      const int64_t until = all * (pass + 1) / passes * LINE;
      for (int64_t s = 0; s < kinds; ++s) {
        Some& some = of_shift[s];
        some.begin = some.end;
        while (some.end < some.all && some.pairs[some.end].left < until) ++some.end;
      }
      for (int64_t b = 0; b < blocks.count; ++b) {
        const int64_t row = blocks.begin(b);
        with_rows(blocks.begin(b + 1) - row, [&](auto r) {
          gradient_rows<r>(w, left + b * all * LINE, right, next, of_shift.data(), row, sums);
        });
      }
    }
    sums += w.sums();
  }
}

#endif

}  // namespace
}  // namespace deepsim::bf16
