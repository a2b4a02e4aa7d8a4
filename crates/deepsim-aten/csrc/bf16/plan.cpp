#include "plan.h"

#include <algorithm>

namespace deepsim::bf16 {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Fewer channels than this leave most of a step empty: a strided image's phases are merged.
constexpr int64_t NARROW = 16, MERGED_MOST = 64;

struct Shape {
  const Geometry& g;
  int64_t big, small;  // channels of a group
  bool merged;

  explicit Shape(const Geometry& geometry)
      : g(geometry), big(geometry.big / geometry.groups), small(geometry.small / geometry.groups) {
    merged = g.stride > 1 && g.groups == 1 && big < NARROW && g.stride * g.stride * big <= MERGED_MOST;
  }
  // Distance and phase of tap k: stride * shift + phase = k - pad.
  int64_t shift(int64_t k) const { return floor_div(k - g.pad, g.stride); }
  int64_t phase(int64_t k) const { return k - g.pad - g.stride * shift(k); }
  int64_t least() const { return shift(0); }
  int64_t most() const { return shift(g.kernel - 1); }
  int64_t plane_channels() const { return merged ? g.stride * g.stride * big : big; }

  // Index of w(ky, kx) between channels of the first group, -1 outside the kernel: the weights are
  // [small, big / groups, ky, kx] whichever way the map goes.
  int32_t weight(int64_t cs, int64_t cb, int64_t ky, int64_t kx) const {
    if (ky < 0 || kx < 0 || ky >= g.kernel || kx >= g.kernel) return -1;
    return static_cast<int32_t>(((cs * big + cb) * g.kernel + ky) * g.kernel + kx);
  }
  // The same for a channel of a plane: in a merged one it tells the phase, too.
  int32_t weight_at(int64_t cs, int64_t channel, int64_t phase_y, int64_t phase_x, int64_t shift_y,
                    int64_t shift_x) const {
    if (merged) {
      phase_y = channel / big / g.stride;
      phase_x = channel / big % g.stride;
      channel %= big;
    }
    return weight(cs, channel, g.stride * shift_y + phase_y + g.pad,
                  g.stride * shift_x + phase_x + g.pad);
  }
};

// Zeros that a row of `size` positions needs for `outputs` results with shifts least to most.
int64_t zeros(int64_t size, int64_t outputs, int64_t least, int64_t most) {
  return std::max({int64_t{0}, -least, outputs - 1 + most - (size - 1)});
}

Layout layout(const Geometry& g, int64_t channels, int64_t phases, bool merged, int64_t height,
              int64_t width, int64_t out_height, int64_t out_width, int64_t least, int64_t most) {
  Layout l;
  l.groups = g.groups;
  l.phases = phases;
  l.merged = merged;
  l.channels = channels;
  l.data_width = width;
  l.data_height = height;
  l.width = std::max(width + zeros(width, out_width, least, most), out_width);
  l.height = std::max(height + zeros(height, out_height, least, most), out_height);
  const int64_t before = std::max<int64_t>(0, -least), after = std::max<int64_t>(0, most);
  l.lead = before * (l.width + 1);
  // Products take 32 rows at once and may read one step beyond the last tap.
  l.tail = after * (l.width + 1) + 2 * TILE + ceil_div(2 * DEPTH, channels);
  return l;
}

// Taps of one plane that lie side by side are one run of values.
struct Run {
  int64_t plane, shift_y, shift_x, count;
};

void add_run(std::vector<Step>& steps, const Layout& in, const Run& run) {
  const int64_t all = run.count * in.channels;
  for (int64_t e = 0; e < all; e += DEPTH)
    steps.push_back({run.plane, in.lead + run.shift_y * in.width + run.shift_x, e,
                     std::min<int64_t>(DEPTH / 2, (all - e + 1) / 2), run.shift_y,
                     run.shift_x + e / in.channels,
                     run.shift_x + (std::min(all, e + DEPTH) - 1) / in.channels});
}

// The map of packed weights; `source(run, tap in the run, channel, column)` says where one comes
// from.
template <class Source>
std::vector<int32_t> packed(const Correlation& c, const std::vector<Run>& runs,
                            const Source& source) {
  std::vector<int32_t> out;
  for (int64_t tile = 0; tile < c.tiles(); tile += 2) {
    const int64_t both = std::min<int64_t>(2, c.tiles() - tile);
    for (const auto& run : runs)
      for (int64_t e = 0; e < run.count * c.in.channels; e += DEPTH)
        for (int64_t t = tile; t < tile + both; ++t)
          for (int64_t pair = 0; pair < DEPTH / 2; ++pair)
            for (int64_t column = t * TILE; column < (t + 1) * TILE; ++column)
              for (int64_t half = 0; half < 2; ++half) {
                const int64_t at = e + 2 * pair + half, tap = at / c.in.channels;
                out.push_back(tap < run.count && column < c.columns
                                  ? source(run, tap, at % c.in.channels, column)
                                  : -1);
              }
  }
  return out;
}

Correlation make_down(const Shape& s) {
  const auto& g = s.g;
  Correlation c;
  c.in = layout(g, s.plane_channels(), g.stride, s.merged, ceil_div(g.big_height, g.stride),
                ceil_div(g.big_width, g.stride), g.small_height, g.small_width, s.least(), s.most());
  c.stride = 1;
  c.merged_out = false;
  c.columns = s.small;
  std::vector<Run> runs;
  if (s.merged) {
    for (int64_t y = s.least(); y <= s.most(); ++y)
      runs.push_back({0, y, s.least(), s.most() - s.least() + 1});
  } else {
    for (int64_t py = 0; py < g.stride; ++py)
      for (int64_t px = 0; px < g.stride; ++px)
        for (int64_t ky = 0; ky < g.kernel; ++ky) {
          if (s.phase(ky) != py) continue;
          Run run{py * g.stride + px, s.shift(ky), 0, 0};
          for (int64_t kx = 0; kx < g.kernel; ++kx)
            if (s.phase(kx) == px && run.count++ == 0) run.shift_x = s.shift(kx);
          if (run.count) runs.push_back(run);
        }
  }
  Part part{0, 0, {}, {}};
  for (const auto& run : runs) add_run(part.steps, c.in, run);
  part.weights = packed(c, runs, [&](const Run& run, int64_t tap, int64_t channel, int64_t column) {
    return s.weight_at(column, channel, run.plane / g.stride, run.plane % g.stride, run.shift_y,
                       run.shift_x + tap);
  });
  c.parts.push_back(std::move(part));
  return c;
}

Correlation make_up(const Shape& s) {
  const auto& g = s.g;
  Correlation c;
  c.in = layout(g, s.small, 1, false, g.small_height, g.small_width,
                ceil_div(g.big_height, g.stride), ceil_div(g.big_width, g.stride), -s.most(),
                -s.least());
  c.stride = g.stride;
  c.merged_out = s.merged;
  c.columns = s.plane_channels();
  const int64_t phases = s.merged ? 1 : g.stride;
  for (int64_t py = 0; py < phases; ++py)
    for (int64_t px = 0; px < phases; ++px) {
      const auto has = [&](int64_t phase, int64_t shift) {
        const int64_t k = g.stride * shift + phase + g.pad;
        return s.merged || (k >= 0 && k < g.kernel);
      };
      std::vector<Run> runs;
      for (int64_t y = -s.most(); y <= -s.least(); ++y) {
        if (!has(py, -y)) continue;
        Run run{0, y, 0, 0};
        for (int64_t x = -s.most(); x <= -s.least(); ++x)
          if (has(px, -x) && run.count++ == 0) run.shift_x = x;
        if (run.count) runs.push_back(run);
      }
      Part part{py, px, {}, {}};
      for (const auto& run : runs) add_run(part.steps, c.in, run);
      part.weights =
          packed(c, runs, [&](const Run& run, int64_t tap, int64_t channel, int64_t column) {
            return s.weight_at(channel, column, py, px, -run.shift_y, -(run.shift_x + tap));
          });
      c.parts.push_back(std::move(part));
    }
  return c;
}

WeightGradient make_weight_gradient(const Shape& s, const Correlation& down) {
  const auto& g = s.g;
  WeightGradient w;
  w.big = down.in;
  w.small = down.in;
  w.small.phases = 1;
  w.small.merged = false;
  w.small.channels = s.small;
  w.small.lead = 0;
  w.small.tail = 0;
  w.rows = s.small;
  w.columns = s.plane_channels();
  w.small_height = g.small_height;
  w.small_width = g.small_width;
  // Where the tap of a plane and two shifts stands among the taps, -1 for none.
  const int64_t wide = s.most() - s.least() + 1, planes = w.big.planes();
  std::vector<int64_t> places(static_cast<size_t>(planes * wide * wide), -1);
  const auto place = [&](int64_t plane, int64_t y, int64_t x) -> int64_t& {
    return places[static_cast<size_t>((plane * wide + y - s.least()) * wide + x - s.least())];
  };
  for (int64_t plane = 0; plane < planes; ++plane)
    for (int64_t y = s.least(); y <= s.most(); ++y)
      for (int64_t x = s.least(); x <= s.most(); ++x) {
        const int64_t py = plane / g.stride, px = plane % g.stride;
        if (!s.merged && s.weight_at(0, 0, py, px, y, x) < 0) continue;
        place(plane, y, x) = static_cast<int64_t>(w.taps.size());
        w.taps.push_back({plane, w.big.lead + y * w.big.width + x, y});
      }
  for (int64_t cs = 0; cs < s.small; ++cs)
    for (int64_t cb = 0; cb < s.big; ++cb)
      for (int64_t ky = 0; ky < g.kernel; ++ky)
        for (int64_t kx = 0; kx < g.kernel; ++kx) {
          const int64_t phase = s.phase(ky) * g.stride + s.phase(kx);
          const int64_t plane = s.merged ? 0 : phase;
          const int64_t column = s.merged ? phase * s.big + cb : cb;
          const int64_t tap = place(plane, s.shift(ky), s.shift(kx));
          const int64_t tile = (tap * w.row_tiles() + cs / TILE) * w.column_tiles() + column / TILE;
          w.from.push_back(static_cast<int32_t>((tile * TILE + cs % TILE) * TILE + column % TILE));
        }
  return w;
}

}  // namespace

Plan make_plan(const Geometry& geometry) {
  Plan plan;
  plan.geometry = geometry;
  const Shape shape(plan.geometry);
  plan.down = make_down(shape);
  plan.up = make_up(shape);
  plan.weight_gradient = make_weight_gradient(shape, plan.down);
  return plan;
}

}  // namespace deepsim::bf16
