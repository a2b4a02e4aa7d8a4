// Compiled once for each instruction set (DEEPSIM_ISA names the table that comes out).
#include "kernel.h"

#include "tiles.h"
#include "vector.h"

namespace deepsim::bf16 {
namespace {

// ---- Packing ----------------------------------------------------------------------------------

inline void clear(Half* to, int64_t halves) {
  std::memset(to, 0, static_cast<size_t>(halves) * sizeof(Half));
}

template <bool FP32, bool SIGN>
struct Packer {
  const Layout& l;
  const Source& s;

  void copy(Half* to, int64_t image, int64_t y, int64_t x, int64_t channel, int64_t n) const {
    const int64_t at = ((image * s.height + y) * s.width + x) * s.channels + channel;
    convert<FP32, SIGN>(to, s.data, at, s.sign, s.slope, n);
  }

  // Row r of a phase: positions j hold columns phases * j + px.
  void row(Half* to, int64_t image, int64_t r, int64_t group, int64_t py, int64_t px) const {
    const int64_t c = l.channels, y = l.phases * r + py - s.top;
    if (y < 0 || y >= s.height) return clear(to, l.width * c);
    const int64_t begin = std::clamp<int64_t>((s.left - px + l.phases - 1) / l.phases, 0, l.width);
    const int64_t end = std::clamp<int64_t>((s.width + s.left - px + l.phases - 1) / l.phases,
                                            begin, l.width);
    clear(to, begin * c);
    if (l.phases == 1 && c == s.channels) {
      copy(to + begin * c, image, y, begin - s.left, 0, (end - begin) * c);
    } else {
      for (int64_t j = begin; j < end; ++j)
        copy(to + j * c, image, y, l.phases * j + px - s.left, group * c, c);
    }
    clear(to + end * c, (l.width - end) * c);
  }

  // Row r of merged phases: a position holds phases x phases pixels, row by row.
  void merged_row(Half* to, int64_t image, int64_t r) const {
    const int64_t p = l.phases, part = p * s.channels;
    // Positions whose pixels all lie inside.
    const int64_t begin = std::clamp<int64_t>((s.left + p - 1) / p, 0, l.width);
    const int64_t end = std::clamp<int64_t>((s.width + s.left) / p, begin, l.width);
    for (int64_t py = 0; py < p; ++py) {
      const int64_t y = p * r + py - s.top;
      Half* row = to + py * part;
      const bool outside = y < 0 || y >= s.height;
      for (int64_t j = 0; j < l.width; ++j) {
        if (j == begin && !outside) {
          for (; j < end; ++j) copy(row + j * l.channels, image, y, p * j - s.left, 0, part);
          if (j == l.width) break;
        }
        const int64_t x = p * j - s.left;
        const int64_t from = std::clamp<int64_t>(-x, 0, p);
        const int64_t until = std::clamp<int64_t>(s.width - x, from, p);
        clear(row + j * l.channels, part);
        if (!outside && from < until)
          copy(row + j * l.channels + from * s.channels, image, y, x + from, 0,
               (until - from) * s.channels);
      }
    }
  }

  void all(int64_t first, int64_t count, Half* to) const {
    const int64_t c = l.channels;
    for (int64_t g = 0; g < l.groups; ++g)
      for (int64_t plane = 0; plane < l.planes(); ++plane) {
        clear(to, l.lead * c);
        to += l.lead * c;
        for (int64_t image = first; image < first + count; ++image)
          for (int64_t r = 0; r < l.height; ++r, to += l.width * c) {
            if (l.merged)
              merged_row(to, image, r);
            else
              row(to, image, r, g, plane / l.phases, plane % l.phases);
          }
        clear(to, l.tail * c);
        to += l.tail * c;
      }
  }
};

void pack(const Layout& layout, const Source& s, int64_t first, int64_t count, Half* to) {
  if (s.fp32 && s.sign)
    Packer<true, true>{layout, s}.all(first, count, to);
  else if (s.fp32)
    Packer<true, false>{layout, s}.all(first, count, to);
  else if (s.sign)
    Packer<false, true>{layout, s}.all(first, count, to);
  else
    Packer<false, false>{layout, s}.all(first, count, to);
}

void pack_weights(const int32_t* map, const float* weight, Half* to, int64_t from, int64_t end) {
#if defined(__AVX512BF16__)
  for (int64_t i = from; i < end; i += 16) {
    const __m512i at = _mm512_loadu_si512(map + i);
    const __mmask16 m = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
    store_halves(to + i, 0xffff, _mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, at, weight, 4));
  }
#else
  for (int64_t i = from; i < end; ++i) to[i] = map[i] < 0 ? Half{0} : to_half(weight[map[i]]);
#endif
}

void add_rows(const Half* rows, int64_t count, int64_t channels, float* sums) {
#if defined(__AVX512BF16__)
  for (int64_t c = 0; c < channels; c += 16) {
    const __mmask16 m = first_lanes(channels - c);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t r = 0; r < count; ++r)
      sum = _mm512_add_ps(sum, load_halves(rows + r * channels + c, m));
    _mm512_mask_storeu_ps(sums + c, m, _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, sums + c)));
  }
#else
  for (int64_t r = 0; r < count; ++r)
    for (int64_t c = 0; c < channels; ++c) sums[c] += to_float(rows[r * channels + c]);
#endif
}

// ---- Correlation ------------------------------------------------------------------------------

constexpr int64_t ROWS = 2 * TILE;    // positions of one product
constexpr int64_t WIDE = 64;          // most columns of a merged output
constexpr int64_t RESIDENT = 448 << 10;  // halves of weights that stay in the second-level cache

// Steps by which weights are fetched into the first-level cache in advance.
constexpr int64_t AHEAD = 2;

// 32 positions x 16 * COLUMNS columns over all steps, into rows of `stride` floats. `between` is
// called after each step: what it does is done while the matrix unit works.
template <int COLUMNS, class Between>
inline void product(const Half* from, int64_t row_bytes, const int64_t* offsets, int64_t steps,
                    const Half* weights, float* to, int64_t stride, const Between& between) {
  memory_barrier();
  TILE_ZERO(0);
  TILE_ZERO(2);
  if constexpr (COLUMNS == 2) {
    TILE_ZERO(1);
    TILE_ZERO(3);
  }
  const int64_t second = TILE * row_bytes / static_cast<int64_t>(sizeof(Half));
  for (int64_t k = 0; k < steps; ++k) {
    const Half* at = from + offsets[k];
    prefetch(weights + AHEAD * COLUMNS * TILE * DEPTH, COLUMNS * TILE * DEPTH);
    TILE_LOAD(4, at, row_bytes);
    TILE_LOAD(6, weights, 64);
    TILE_PRODUCT(0, 4, 6);
    if constexpr (COLUMNS == 2) {
      TILE_LOAD(7, weights + TILE * DEPTH, 64);
      TILE_PRODUCT(1, 4, 7);
    }
    TILE_LOAD(5, at + second, row_bytes);
    TILE_PRODUCT(2, 5, 6);
    if constexpr (COLUMNS == 2) TILE_PRODUCT(3, 5, 7);
    weights += COLUMNS * TILE * DEPTH;
    between();
  }
  TILE_STORE(0, to, stride * 4);
  TILE_STORE(2, to + TILE * stride, stride * 4);
  if constexpr (COLUMNS == 2) {
    TILE_STORE(1, to + TILE, stride * 4);
    TILE_STORE(3, to + TILE * stride + TILE, stride * 4);
  }
}

// `n` values of one position, at most 2 * TILE.
template <bool FP32>
inline void finish(const float* v, const float* bias, float slope, void* to, int64_t n) {
#if defined(__AVX512BF16__)
  const __m512 slopes = _mm512_set1_ps(slope), zero = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = first_lanes(n - i);
    __m512 x = _mm512_maskz_loadu_ps(m, v + i);  // `v` may be the last row of its buffer
    if (bias) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(m, bias + i));
    // max returns its second operand for NaN: a NaN passes.
    if (slope == 0)
      x = _mm512_max_ps(zero, x);
    else if (slope != 1)
      x = _mm512_max_ps(_mm512_mul_ps(x, slopes), x);
    if constexpr (FP32)
      _mm512_mask_storeu_ps(static_cast<float*>(to) + i, m, x);
    else
      store_halves(static_cast<Half*>(to) + i, m, x);
  }
#else
  for (int64_t i = 0; i < n; ++i) {
    float x = bias ? v[i] + bias[i] : v[i];
    if (slope != 1 && !(x > 0)) x = slope == 0 && x == x ? 0 : x * slope;
    if constexpr (FP32)
      static_cast<float*>(to)[i] = x;
    else
      static_cast<Half*>(to)[i] = to_half(x);
  }
#endif
}

struct Unit {
  const int64_t* offsets;
  const int32_t* pixels;
  const Half* weights;
  int64_t column, tiles, steps;
};

constexpr int32_t NOWHERE = -1;
// Below it: positions that lie in the target with a part of their pixels alone.
constexpr int32_t PARTLY = -2;

template <bool FP32>
struct Correlator {
  const Correlation& c;
  const Target& t;
  int64_t first, count;

  void* at(int64_t pixel, int64_t channel) const {
    const int64_t i = pixel * t.channels + channel;
    if constexpr (FP32)
      return static_cast<float*>(t.data) + i;
    else
      return static_cast<Half*>(t.data) + i;
  }

  // For each position of an image: its (first) pixel in the target.
  void pixels_of(const Part& part, int32_t* out) const {
    const int64_t more = c.merged_out ? c.stride - 1 : 0;
    for (int64_t r = 0; r < c.in.height; ++r)
      for (int64_t j = 0; j < c.in.width; ++j) {
        const int64_t y = c.stride * r + part.phase_y - t.top;
        const int64_t x = c.stride * j + part.phase_x - t.left;
        int64_t pixel = NOWHERE;
        if (y >= 0 && y + more < t.height && x >= 0 && x + more < t.width)
          pixel = y * t.width + x;
        else if (y + more >= 0 && y < t.height && x + more >= 0 && x < t.width)
          pixel = PARTLY - (r * c.in.width + j);
        *out++ = static_cast<int32_t>(pixel);
      }
  }

  // All phases of a position, of which some lie outside.
  void merged_part(const float* v, int64_t image, int64_t position) const {
    const int64_t p = c.stride, channels = t.channels;
    const int64_t y0 = p * (position / c.in.width) - t.top;
    const int64_t x0 = p * (position % c.in.width) - t.left;
    for (int64_t py = std::max<int64_t>(0, -y0); py < std::min(p, t.height - y0); ++py)
      for (int64_t px = std::max<int64_t>(0, -x0); px < std::min(p, t.width - x0); ++px)
        finish<FP32>(v + (py * p + px) * channels, t.bias, t.slope,
                     at((image * t.height + y0 + py) * t.width + x0 + px, 0), channels);
  }
  void merged(const float* v, int64_t image, int64_t pixel, const float* bias) const {
    const int64_t part = c.stride * t.channels;
    pixel += image * t.height * t.width;
    for (int64_t py = 0; py < c.stride; ++py, pixel += t.width)
      finish<FP32>(v + py * part, bias ? bias + py * part : nullptr, t.slope, at(pixel, 0), part);
  }

  void run(const Half* packed, const Half* weights) const {
    const auto& in = c.in;
    const int64_t span = in.span(count), plane = span * in.channels;
    const auto parts = static_cast<int64_t>(c.parts.size());
    int64_t steps = 0;
    for (const auto& part : c.parts) steps += static_cast<int64_t>(part.steps.size());
    Buffer<int64_t> offsets(steps);
    Buffer<int32_t> pixels(parts * in.positions());
    Buffer<Unit> units(parts * c.tiles());
    int64_t* offset = offsets.data();
    for (int64_t p = 0; p < parts; ++p) {
      const auto& part = c.parts[static_cast<size_t>(p)];
      for (const auto& s : part.steps) *offset++ = s.plane * plane + s.shift * in.channels + s.element;
      pixels_of(part, pixels.data() + p * in.positions());
    }
    for (int64_t g = 0; g < in.groups; ++g) {
      int64_t halves = 0, waiting = 0;
      offset = offsets.data();
      for (int64_t p = 0; p < parts; ++p) {
        const auto of_part = static_cast<int64_t>(c.parts[static_cast<size_t>(p)].steps.size());
        for (int64_t tile = 0; tile < c.tiles(); tile += 2) {
          const int64_t tiles = std::min<int64_t>(2, c.tiles() - tile);
          const int64_t size = of_part * tiles * TILE * DEPTH;
          if (halves + size > RESIDENT && waiting && !c.merged_out) {
            positions(units.data(), waiting, packed, g);
            halves = waiting = 0;
          }
          units[waiting++] = {offset, pixels.data() + p * in.positions(), weights, tile * TILE, tiles,
                              of_part};
          weights += size;
          halves += size;
        }
        offset += of_part;
      }
      positions(units.data(), waiting, packed, g);
      packed += in.planes() * plane;
    }
  }

  // Sums of some positions that are on their way into the target.
  struct Pending {
    const float* sums;
    const int32_t* pixels;
    int64_t stride, image, position, channel, columns, rows;  // rows that are left
    const float* bias;
  };

  void finish_rows(Pending& p, int64_t rows) const {
    for (rows = std::min(rows, p.rows), p.rows -= rows; rows > 0; --rows, p.sums += p.stride) {
      const int64_t pixel = p.pixels[p.position];
      if (pixel <= PARTLY)
        merged_part(p.sums, p.image, PARTLY - pixel);
      else if (pixel >= 0 && c.merged_out)
        merged(p.sums, p.image, pixel, p.bias);
      else if (pixel >= 0)
        finish<FP32>(p.sums, p.bias, t.slope, at(p.image * t.height * t.width + pixel, p.channel),
                     p.columns);
      if (++p.position == c.in.positions()) {
        p.position = 0;
        ++p.image;
      }
    }
  }

  // All positions of all images for some columns.
  void positions(const Unit* units, int64_t n_units, const Half* packed, int64_t group) const {
    const auto& in = c.in;
    const int64_t all = count * in.positions(), columns = c.columns;
    const int64_t stride = c.merged_out ? WIDE : ROWS;
    // One is filled while the other is carried away.
    alignas(64) float both[2][ROWS * WIDE];
    int filling = 0;
    float biases[WIDE];
    if (c.merged_out && t.bias)
      for (int64_t i = 0; i < columns; ++i) biases[i] = t.bias[i % t.channels];
    Pending pending{};
    for (int64_t q = 0; q < all; q += ROWS) {
      const int64_t rows = std::min(ROWS, all - q);
      const int64_t image = q / in.positions(), position = q % in.positions();
      const Half* from = packed + q * in.channels;
      for (const Unit* u = units; u < units + n_units; ++u) {
        // Rows of zeros between images need no product.
        bool some = false;
        for (int64_t r = 0, at = position; r < rows && !some; ++r) {
          some = u->pixels[at] != NOWHERE;
          if (++at == in.positions()) at = 0;
        }
        if (!some) continue;
        const int64_t each = (pending.rows + u->steps - 1) / std::max<int64_t>(1, u->steps);
        const auto between = [&] {
          if (pending.rows) finish_rows(pending, each);
        };
        float* to = both[filling] + (c.merged_out ? u->column : 0);
        if (u->tiles == 2)
          product<2>(from, in.channels * 2, u->offsets, u->steps, u->weights, to, stride, between);
        else
          product<1>(from, in.channels * 2, u->offsets, u->steps, u->weights, to, stride, between);
        finish_rows(pending, ROWS);
        const int64_t n = std::min<int64_t>(u->tiles * TILE, columns - u->column);
        if (c.merged_out && u->column + n < columns) continue;
        const int64_t channel = group * columns + u->column;
        const float* bias = t.bias ? c.merged_out ? biases : t.bias + channel : nullptr;
        pending = {both[filling], u->pixels, stride, first + image, position,
                   channel,       n,         rows,   bias};
        filling = 1 - filling;
      }
    }
    finish_rows(pending, ROWS);
  }
};

void correlate(const Correlation& c, const Half* packed, int64_t first, int64_t count,
               const Half* weights, const Target& t) {
  [[maybe_unused]] const Tiles tiles;
  if (t.fp32)
    Correlator<true>{c, t, first, count}.run(packed, weights);
  else
    Correlator<false>{c, t, first, count}.run(packed, weights);
}

// ---- Gradient of the weights ------------------------------------------------------------------

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
int64_t pairs_of(const WeightGradient& w, int64_t count) { return w.big.span(count) / 2 + 1; }
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

}  // namespace

const Kernels* DEEPSIM_TABLE(kernels)() {
  static const Kernels table{pack, correlate, pack_weights, gradient, work, add_rows};
  return &table;
}

}  // namespace deepsim::bf16
