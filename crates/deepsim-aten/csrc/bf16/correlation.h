// Part of kernel.cpp: one map from another.
#pragma once
#include "kernel.h"
#include "panel.h"
#include "tiles.h"
#include "vector.h"

namespace deepsim::bf16 {
namespace {

constexpr int64_t ROWS = 2 * TILE;    // positions of one product
constexpr int64_t WIDE = 64;          // most columns of a merged output
// Halves of weights that stay in the second-level cache: processors with AMX have 2 MiB of it,
// others may have half of that.
#if defined(DEEPSIM_PANELS)
constexpr int64_t RESIDENT = 224 << 10;
#else
constexpr int64_t RESIDENT = 448 << 10;
#endif

#if !defined(DEEPSIM_PANELS)

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

#endif

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
  const Step* plan;  // of the same steps
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
        const auto& plan = c.parts[static_cast<size_t>(p)].steps;
        const auto of_part = static_cast<int64_t>(plan.size());
        for (int64_t tile = 0; tile < c.tiles(); tile += 2) {
          const int64_t tiles = std::min<int64_t>(2, c.tiles() - tile);
          const int64_t size = of_part * tiles * TILE * DEPTH;
          if (halves + size > RESIDENT && waiting && !c.merged_out) {
            positions(units.data(), waiting, packed, g);
            halves = waiting = 0;
          }
          units[waiting++] = {offset,  plan.data(), pixels.data() + p * in.positions(),
                              weights, tile * TILE, tiles,
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

#if !defined(DEEPSIM_PANELS)

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

#else

  // A position of the map that is read, and its pixel in the target.
  struct Place {
    int32_t position, pixel;
  };

  void finish_row(const float* v, int64_t image, int64_t pixel, int64_t channel, int64_t columns,
                  const float* bias) const {
    if (pixel <= PARTLY)
      merged_part(v, image, PARTLY - pixel);
    else if (c.merged_out)
      merged(v, image, pixel, bias);
    else
      finish<FP32>(v, bias, t.slope, at(image * t.height * t.width + pixel, channel), columns);
  }

  // Places of a part that read the same steps: the others are zeros in all of them.
  struct Group {
    const Place* places;
    int64_t size, steps;  // of an image; `steps` are those of Gathered
  };
  // What the blocks of one part after the other use.
  struct Gathered {
    Place* places;
    PanelStep* steps;
    Half* panel;
    float* sums;  // of a block of some columns
  };

  // All positions of all images for some columns. Those that lie in the target are gathered into
  // panels, block by block: rows of zeros between rows and images are not multiplied, and a panel
  // serves all columns.
  void positions(const Unit* units, int64_t n_units, const Half* packed, int64_t group) const {
    const auto& in = c.in;
    float biases[WIDE];
    if (c.merged_out && t.bias)
      for (int64_t i = 0; i < c.columns; ++i) biases[i] = t.bias[i % t.channels];
    int64_t most = 0;
    for (int64_t u = 0; u < n_units; ++u) most = std::max(most, units[u].steps);
    // One for each row, one for each column, and the rest: where the places of each begin.
    const int64_t kinds = in.height + in.width + 1;
    Buffer<int64_t> begins(kinds + 1);
    Buffer<Place> places(in.positions());
    Buffer<PanelStep> steps(most);
    Buffer<Half> memory((most * PANEL_ROWS + 1) * LINE);
    alignas(64) float sums[PANEL_ROWS * WIDE];
    const Gathered gathered{places.data(), steps.data(), aligned(memory.data()), sums};
    for (const Unit *u = units, *end; u < units + n_units; u = end) {
      end = u + 1;
      while (end < units + n_units && end->pixels == u->pixels) ++end;
      sort_places(*u, begins.data(), gathered.places);
      for (int64_t kind = 0; kind < kinds; ++kind) {
        const int64_t size = begins[kind + 1] - begins[kind];
        const Group one{gathered.places + begins[kind], size, steps_of(*u, kind, gathered.steps)};
        const Blocks blocks(count * size);
        for (int64_t block = 0; block < blocks.count; ++block) {
          const int64_t begin = blocks.begin(block), rows = blocks.begin(block + 1) - begin;
          fill(packed, *u, gathered, one, begin, rows);
          for (const Unit* unit = u; unit < end; ++unit)
            unit_rows(*unit, gathered, one, begin, rows, group, biases);
        }
      }
    }
  }

  // Places in the order of their kinds, each of which begins at begins[kind]. A row above or below
  // which some step lies outside the map is a kind of its own; so is, of the other rows, such a
  // column; what is left is the last kind, and what fills no block well stays with it.
  void sort_places(const Unit& u, int64_t* begins, Place* places) const {
    constexpr int64_t FEW = PANEL_ROWS / 2, JOINED = -1;
    const auto& in = c.in;
    const int64_t last = in.height + in.width;
    int64_t above = 0, below = 0, before = 0, behind = 0;
    for (const Step* s = u.plan; s < u.plan + u.steps; ++s) {
      above = std::min(above, s->y);
      below = std::max(below, s->y);
      before = std::min(before, s->left);
      behind = std::max(behind, s->right);
    }
    const auto kind_of = [&](int64_t y, int64_t x) {
      if (y + above < 0 || y + below >= in.data_height) return y;
      return x + before < 0 || x + behind >= in.data_width ? in.height + x : last;
    };
    const auto each = [&](const auto& f) {
      int32_t position = 0;
      for (int64_t y = 0; y < in.height; ++y)
        for (int64_t x = 0; x < in.width; ++x, ++position)
          if (u.pixels[position] != NOWHERE) f(kind_of(y, x), position);
    };
    Buffer<int64_t> next(last + 1);
    std::fill(next.data(), next.data() + last + 1, 0);
    each([&](int64_t kind, int32_t) { ++next[kind]; });
    int64_t few = 0, sum = 0;
    for (int64_t kind = 0; kind <= last; ++kind) {
      int64_t n = next[kind];
      const bool joins = kind < last && n * count < FEW;
      if (joins) few += std::exchange(n, 0);
      begins[kind] = sum;
      next[kind] = joins ? JOINED : sum;
      sum += kind == last ? n + few : n;
    }
    begins[last + 1] = sum;
    each([&](int64_t kind, int32_t position) {
      places[next[next[kind] == JOINED ? last : kind]++] = {position, u.pixels[position]};
    });
  }

  // The steps that are not zeros for a kind.
  int64_t steps_of(const Unit& u, int64_t kind, PanelStep* out) const {
    const auto& in = c.in;
    const int64_t x = kind - in.height;
    int64_t n = 0;
    for (int64_t k = 0; k < u.steps; ++k) {
      const Step& s = u.plan[k];
      const bool there = kind < in.height ? kind + s.y >= 0 && kind + s.y < in.data_height
                         : x < in.width   ? x + s.right >= 0 && x + s.left < in.data_width
                                          : true;
      if (there) out[n++] = {static_cast<int32_t>(k), static_cast<int32_t>(s.pairs)};
    }
    return n;
  }

  // The operands of some places as [step][row][32].
  void fill(const Half* packed, const Unit& u, const Gathered& g, const Group& group, int64_t begin,
            int64_t rows) const {
    int64_t image = begin / group.size, i = begin % group.size;
    for (int64_t r = 0; r < rows; ++r) {
      const Half* from =
          packed + (image * c.in.positions() + group.places[i].position) * c.in.channels;
      Half* to = g.panel + r * LINE;
      for (int64_t k = 0; k < group.steps; ++k, to += rows * LINE)
        _mm512_store_si512(to, _mm512_loadu_si512(from + u.offsets[g.steps[k].place]));
      if (++i == group.size) {
        i = 0;
        ++image;
      }
    }
  }

  void unit_rows(const Unit& u, const Gathered& g, const Group& group, int64_t begin, int64_t rows,
                 int64_t map_group, const float* biases) const {
    const int64_t stride = c.merged_out ? WIDE : 2 * TILE;
    float* to = g.sums + (c.merged_out ? u.column : 0);
    with_rows(rows, [&](auto r) {
      if (u.tiles == 2)
        panel_product<r, 2>(g.panel, u.weights, g.steps, group.steps, to, stride);
      else
        panel_product<r, 1>(g.panel, u.weights, g.steps, group.steps, to, stride);
    });
    const int64_t n = std::min<int64_t>(u.tiles * TILE, c.columns - u.column);
    if (c.merged_out && u.column + n < c.columns) return;
    const int64_t channel = map_group * c.columns + u.column;
    const float* bias = t.bias ? c.merged_out ? biases : t.bias + channel : nullptr;
    int64_t image = begin / group.size, i = begin % group.size;
    for (int64_t r = 0; r < rows; ++r) {
      finish_row(g.sums + r * stride, first + image, group.places[i].pixel, channel, n, bias);
      if (++i == group.size) {
        i = 0;
        ++image;
      }
    }
  }

#endif
};

void correlate(const Correlation& c, const Half* packed, int64_t first, int64_t count,
               const Half* weights, const Target& t) {
  [[maybe_unused]] const Tiles tiles;
  if (t.fp32)
    Correlator<true>{c, t, first, count}.run(packed, weights);
  else
    Correlator<false>{c, t, first, count}.run(packed, weights);
}

}  // namespace
}  // namespace deepsim::bf16
