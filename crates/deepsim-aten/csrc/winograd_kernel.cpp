// Compiled once for each instruction set (DEEPSIM_ISA names the table that comes out).
#include "winograd_kernel.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace deepsim {
namespace {

constexpr int LANES = 16;
typedef float V __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define INLINE inline __attribute__((always_inline))

INLINE V load(const float* p, int64_t n) {
  V v = {};
  if (n >= LANES)
    std::memcpy(&v, p, sizeof v);
  else
    std::memcpy(&v, p, static_cast<size_t>(n) * 4);
  return v;
}
INLINE void store(float* p, const V& v, int64_t n) {
  if (n >= LANES)
    std::memcpy(p, &v, sizeof v);
  else
    std::memcpy(p, &v, static_cast<size_t>(n) * 4);
}

// Interpolation points besides infinity: small numbers of both signs with small reciprocals keep
// the rounding of the sums low.
constexpr double POINTS[5] = {0.0, 1.0, -1.0, 0.5, -2.0};

// Cook-Toom matrices for m outputs of an r-tap filter, transposed to a correlation.
template <int M, int R>
struct Toom {
  static constexpr int T = M + R - 1;
  static constexpr std::array<std::array<double, T>, M> a_transposed() {
    std::array<std::array<double, T>, M> a{};
    for (int k = 0; k < T - 1; ++k) {
      double power = 1;
      for (int i = 0; i < M; ++i) {
        a[i][k] = power;
        power *= POINTS[k];
      }
    }
    a[M - 1][T - 1] = 1;
    return a;
  }
  static constexpr std::array<std::array<double, R>, T> g() {
    std::array<std::array<double, R>, T> out{};
    for (int k = 0; k < T - 1; ++k) {
      double n = 1;
      for (int l = 0; l < T - 1; ++l)
        if (l != k) n *= POINTS[k] - POINTS[l];
      double power = 1;
      for (int j = 0; j < R; ++j) {
        out[k][j] = power / n;
        power *= POINTS[k];
      }
    }
    out[T - 1][R - 1] = 1;
    return out;
  }
  static constexpr std::array<std::array<double, T>, T> b_transposed() {
    std::array<std::array<double, T>, T> out{};
    for (int k = 0; k < T; ++k) {
      // Coefficients of the product of (x - point) over all points but the k-th.
      std::array<double, T> c{};
      c[0] = 1;
      int degree = 0;
      for (int l = 0; l < T - 1; ++l) {
        if (l == k) continue;
        for (int d = degree + 1; d > 0; --d) c[d] = c[d - 1] - POINTS[l] * c[d];
        c[0] *= -POINTS[l];
        ++degree;
      }
      out[k] = c;
    }
    return out;
  }
  template <class Matrix>
  static constexpr auto flipped(const Matrix& m) {
    std::array<std::array<double, std::tuple_size_v<Matrix>>,
               std::tuple_size_v<typename Matrix::value_type>>
        out{};
    for (size_t i = 0; i < m.size(); ++i)
      for (size_t j = 0; j < m[i].size(); ++j) out[j][i] = m[i][j];
    return out;
  }
};

template <int M, int R>
struct MatAT {
  static constexpr auto m = Toom<M, R>::a_transposed();
};
template <int M, int R>
struct MatA {
  static constexpr auto m = Toom<M, R>::flipped(Toom<M, R>::a_transposed());
};
template <int M, int R>
struct MatG {
  static constexpr auto m = Toom<M, R>::g();
};
template <int M, int R>
struct MatGT {
  static constexpr auto m = Toom<M, R>::flipped(Toom<M, R>::g());
};
template <int M, int R>
struct MatBT {
  static constexpr auto m = Toom<M, R>::b_transposed();
};
template <int M, int R>
struct MatB {
  static constexpr auto m = Toom<M, R>::flipped(Toom<M, R>::b_transposed());
};

template <class Mat, int ROW, int K, int STRIDE>
INLINE void term(const V* in, V& sum, bool& first) {
  constexpr double c = Mat::m[ROW][K];
  if constexpr (c == 0.0)
    return;
  else if constexpr (c == 1.0)
    sum = first ? in[K * STRIDE] : sum + in[K * STRIDE];
  else if constexpr (c == -1.0)
    sum = first ? -in[K * STRIDE] : sum - in[K * STRIDE];
  else {
    constexpr float f = static_cast<float>(c);
    sum = first ? in[K * STRIDE] * f : sum + in[K * STRIDE] * f;
  }
  first = false;
}
template <class Mat, int ROW, int STRIDE, size_t... K>
INLINE V dot(const V* in, std::index_sequence<K...>) {
  V sum = {};
  bool first = true;
  (term<Mat, ROW, static_cast<int>(K), STRIDE>(in, sum, first), ...);
  return sum;
}
template <class Mat, int IN, int OUT, size_t... ROW>
INLINE void column(const V* in, V* out, std::index_sequence<ROW...>) {
  constexpr auto cols = std::make_index_sequence<Mat::m[0].size()>{};
  ((out[ROW * OUT] = dot<Mat, static_cast<int>(ROW), IN>(in, cols)), ...);
}
// out [ROWS x ROWS] = Mat in Mat^T, in [COLS x COLS].
template <class Mat>
INLINE void both_sides(const V* in, V* out) {
  constexpr int ROWS = static_cast<int>(Mat::m.size()), COLS = static_cast<int>(Mat::m[0].size());
  constexpr auto rows = std::make_index_sequence<ROWS>{};
  V half[ROWS * COLS];
  for (int c = 0; c < COLS; ++c) column<Mat, COLS, COLS>(in + c, half + c, rows);
  for (int r = 0; r < ROWS; ++r) column<Mat, 1, 1>(half + r * COLS, out + r * ROWS, rows);
}

// Tiles that are multiplied at once: enough rows to make the matrix products efficient, few
// enough for the transformed maps to stay in the cache.
int64_t chunk_tiles(const Correlation& c) {
  const int64_t in = c.in_channels / c.groups, out = c.out_channels / c.groups;
  const int64_t floats = (int64_t{2} << 20) / 4;
  const int64_t least = in * out >= (1 << 16) ? 128 : 64;
  return std::clamp<int64_t>(floats / (c.points() * (in + out)) / 16 * 16, least, 512);
}

struct Place {
  int64_t image, y, x;
};
INLINE Place place(const Correlation& c, int64_t tile) {
  const int64_t per = c.tiles(), within = tile % per;
  return {tile / per, within / c.tiles_x() * c.tile, within % c.tiles_x() * c.tile};
}

template <int M, int R>
struct Kernel {
  static constexpr int T = M + R - 1;
  static constexpr int TT = T * T;

  static int64_t workspace(const Correlation& c) {
    return TT * (plane(chunk_tiles(c) * c.in_channels / c.groups) +
                 plane(chunk_tiles(c) * c.out_channels / c.groups));
  }

  static void weights(const Correlation& c, const float* w, float* u, int64_t from, int64_t to) {
    const int64_t gi = c.in_channels / c.groups, go = c.out_channels / c.groups;
    // Input channels innermost: the taps of neighbouring ones share cache lines.
    for (int64_t g = 0; g < c.groups; ++g)
      for (int64_t out = 0; out < go; out += LANES)
        for (int64_t in = from; in < to; ++in) {
          const int64_t n = std::min<int64_t>(LANES, go - out);
          alignas(64) float taps[R * R][LANES] = {};
          const float* at = w + c.base + (g * go + out) * c.s_out + in * c.s_in;
          for (int64_t l = 0; l < n; ++l)
            for (int i = 0; i < R; ++i)
              for (int j = 0; j < R; ++j)
                taps[i * R + j][l] = at[l * c.s_out + i * c.s_i + j * c.s_j];
          V d[R * R], e[TT];
          for (int i = 0; i < R * R; ++i) d[i] = load(taps[i], LANES);
          both_sides<MatG<M, R>>(d, e);
          for (int t = 0; t < TT; ++t)
            store(u + (g * TT + t) * plane(gi * go) + in * go + out, e[t], n);
        }
  }

  static void weights_back(const Correlation& c, const float* du, float* dw, int64_t from,
                           int64_t to) {
    const int64_t gi = c.in_channels / c.groups, go = c.out_channels / c.groups;
    // Input channels innermost: the taps of neighbouring ones share cache lines.
    for (int64_t g = 0; g < c.groups; ++g)
      for (int64_t out = 0; out < go; out += LANES)
        for (int64_t in = from; in < to; ++in) {
          const int64_t n = std::min<int64_t>(LANES, go - out);
          V e[TT], d[R * R];
          for (int t = 0; t < TT; ++t)
            e[t] = load(du + (g * TT + t) * plane(gi * go) + in * go + out, n);
          both_sides<MatGT<M, R>>(e, d);
          alignas(64) float taps[R * R][LANES];
          for (int i = 0; i < R * R; ++i) store(taps[i], d[i], LANES);
          float* at = dw + c.base + (g * go + out) * c.s_out + in * c.s_in;
          for (int64_t l = 0; l < n; ++l)
            for (int i = 0; i < R; ++i)
              for (int j = 0; j < R; ++j)
                at[l * c.s_out + i * c.s_i + j * c.s_j] = taps[i * R + j][l];
        }
  }

  // V[t][tile][in] = B^T d B.
  static void inputs(const Correlation& c, const float* x, int64_t g, int64_t from, int64_t count,
                     float* v) {
    const int64_t gi = c.in_channels / c.groups;
    for (int64_t p = 0; p < count; ++p) {
      const Place at = place(c, from + p);
      const int64_t y0 = at.y - c.pad_y, x0 = at.x - c.pad_x;
      const bool inside = y0 >= 0 && x0 >= 0 && y0 + T <= c.height && x0 + T <= c.width;
      const float* image = x + at.image * c.height * c.width * c.in_channels + g * gi;
      for (int64_t ch = 0; ch < gi; ch += LANES) {
        const int64_t n = gi - ch;
        V d[TT], e[TT];
        if (inside && n >= LANES) {
          const float* corner = image + (y0 * c.width + x0) * c.in_channels + ch;
          for (int i = 0; i < T; ++i)
            for (int j = 0; j < T; ++j)
              d[i * T + j] = load(corner + (i * c.width + j) * c.in_channels, LANES);
        } else {
          for (int i = 0; i < T; ++i)
            for (int j = 0; j < T; ++j) {
              const int64_t yy = y0 + i, xx = x0 + j;
              const bool in = yy >= 0 && xx >= 0 && yy < c.height && xx < c.width;
              d[i * T + j] = in ? load(image + (yy * c.width + xx) * c.in_channels + ch, n) : V{};
            }
        }
        both_sides<MatBT<M, R>>(d, e);
        float* to = v + p * gi + ch;
        for (int t = 0; t < TT; ++t) store(to + t * plane(count * gi), e[t], n);
      }
    }
  }

  static void forward(const Correlation* parts, int count_of_parts, const float* x,
                      const float* u_all, const float* bias, Activation act, float* y, int64_t from,
                      int64_t to, float* work, Gemm gemm) {
    const Correlation& first = *parts;
    const int64_t chunk = chunk_tiles(first);
    for (int64_t begin = from; begin < to; begin += chunk)
      for (int part = 0; part < count_of_parts; ++part)
        forward_chunk(parts[part], x, u_all + part * first.transformed(), bias, act, y, begin,
                      std::min(chunk, to - begin), chunk, work, gemm);
  }

  static void forward_chunk(const Correlation& c, const float* x, const float* u, const float* bias,
                            Activation act, float* y, int64_t begin, int64_t count, int64_t chunk,
                            float* work, Gemm gemm) {
    const int64_t gi = c.in_channels / c.groups, go = c.out_channels / c.groups;
    float* v = work;
    float* m = work + TT * plane(chunk * gi);
    for (int64_t g = 0; g < c.groups; ++g) {
      inputs(c, x, g, begin, count, v);
      const int cols = static_cast<int>(go), rows = static_cast<int>(count),
                inner = static_cast<int>(gi);
      const float one = 1, zero = 0;
      for (int t = 0; t < TT; ++t)
        gemm("N", "N", &cols, &rows, &inner, &one, u + (g * TT + t) * plane(gi * go), &cols,
             v + t * plane(count * gi), &inner, &zero, m + t * plane(count * go), &cols);
      for (int64_t p = 0; p < count; ++p) {
        const Place at = place(c, begin + p);
        const int ny = static_cast<int>(std::min<int64_t>(M, c.out_height - at.y));
        const int nx = static_cast<int>(std::min<int64_t>(M, c.out_width - at.x));
        for (int64_t ch = 0; ch < go; ch += LANES) {
          const int64_t n = go - ch;
          V e[TT], d[M * M];
          const float* of = m + p * go + ch;
          for (int t = 0; t < TT; ++t) e[t] = load(of + t * plane(count * go), n);
          both_sides<MatAT<M, R>>(e, d);
          const V b = bias ? load(bias + g * go + ch, n) : V{};
          for (int i = 0; i < ny; ++i)
            for (int j = 0; j < nx; ++j) {
              V value = d[i * M + j] + b;
              value = value > 0 ? value : value * act.slope;
              store(output(c, y, at, i, j, g * go + ch), value, n);
            }
        }
      }
    }
  }

  template <class F>
  INLINE static F* output(const Correlation& c, F* y, const Place& at, int i, int j,
                          int64_t channel) {
    const int64_t row = (at.y + i) * c.step + c.offset_y, col = (at.x + j) * c.step + c.offset_x;
    return y + ((at.image * c.map_height + row) * c.map_width + col) * c.out_channels + channel;
  }

  static void backward(const Correlation* parts, int count_of_parts, const float* x,
                       const float* u_all, const float* y, const float* dy, Activation act,
                       float* dx, float* du_all, float* dbias, int64_t from, int64_t to,
                       float* work, Gemm gemm) {
    const Correlation& first = *parts;
    const int64_t chunk = chunk_tiles(first);
    for (int64_t begin = from; begin < to; begin += chunk)
      for (int part = 0; part < count_of_parts; ++part)
        backward_chunk(parts[part], x, u_all ? u_all + part * first.transformed() : nullptr, y, dy,
                       act, dx, du_all ? du_all + part * first.transformed() : nullptr,
                       begin == from, dbias, begin, std::min(chunk, to - begin), chunk, work, gemm);
  }

  static void backward_chunk(const Correlation& c, const float* x, const float* u, const float* y,
                             const float* dy, Activation act, float* dx, float* du,
                             bool first, float* dbias, int64_t begin, int64_t count, int64_t chunk,
                             float* work, Gemm gemm) {
    const int64_t gi = c.in_channels / c.groups, go = c.out_channels / c.groups;
    float* e = work;                        // [t][tile][out]
    float* v = e + TT * plane(chunk * go);  // [t][tile][in]
    const int cols = static_cast<int>(go), inner = static_cast<int>(gi);
    const float one = 1, zero = 0;
    const int rows = static_cast<int>(count);
    for (int64_t g = 0; g < c.groups; ++g) {
      for (int64_t p = 0; p < count; ++p) {
        const Place at = place(c, begin + p);
        const int ny = static_cast<int>(std::min<int64_t>(M, c.out_height - at.y));
        const int nx = static_cast<int>(std::min<int64_t>(M, c.out_width - at.x));
        for (int64_t ch = 0; ch < go; ch += LANES) {
          const int64_t n = go - ch;
          V d[M * M], f[TT];
          V sum = {};
          for (int i = 0; i < M; ++i)
            for (int j = 0; j < M; ++j) {
              V value = {};
              if (i < ny && j < nx) {
                value = load(output(c, dy, at, i, j, g * go + ch), n);
                if (act.slope != 1.0f) {
                  const V out = load(output(c, y, at, i, j, g * go + ch), n);
                  value = out > 0 ? value : value * act.slope;
                }
                sum += value;
              }
              d[i * M + j] = value;
            }
          if (dbias) {
            float* b = dbias + g * go + ch;
            store(b, load(b, n) + sum, n);
          }
          both_sides<MatA<M, R>>(d, f);
          float* put = e + p * go + ch;
          for (int t = 0; t < TT; ++t) store(put + t * plane(count * go), f[t], n);
        }
      }
      if (du) {
        inputs(c, x, g, begin, count, v);
        for (int t = 0; t < TT; ++t)
          gemm("N", "T", &cols, &inner, &rows, &one, e + t * plane(count * go), &cols,
               v + t * plane(count * gi), &inner, first ? &zero : &one, du + (g * TT + t) * plane(gi * go), &cols);
      }
      if (!dx) continue;
      for (int t = 0; t < TT; ++t)
        gemm("T", "N", &inner, &rows, &cols, &one, u + (g * TT + t) * plane(gi * go), &cols,
             e + t * plane(count * go), &cols, &zero, v + t * plane(count * gi), &inner);
      for (int64_t p = 0; p < count; ++p) {
        const Place at = place(c, begin + p);
        const int64_t y0 = at.y - c.pad_y, x0 = at.x - c.pad_x;
        float* image = dx + at.image * c.height * c.width * c.in_channels + g * gi;
        for (int64_t ch = 0; ch < gi; ch += LANES) {
          const int64_t n = gi - ch;
          V f[TT], d[TT];
          const float* of = v + p * gi + ch;
          for (int t = 0; t < TT; ++t) f[t] = load(of + t * plane(count * gi), n);
          both_sides<MatB<M, R>>(f, d);
          for (int i = 0; i < T; ++i)
            for (int j = 0; j < T; ++j) {
              const int64_t yy = y0 + i, xx = x0 + j;
              if (yy < 0 || xx < 0 || yy >= c.height || xx >= c.width) continue;
              float* to_pixel = image + (yy * c.width + xx) * c.in_channels + ch;
              store(to_pixel, load(to_pixel, n) + d[i * T + j], n);
            }
        }
      }
    }
  }
};

template <class Call>
INLINE auto with_kernel(int kernel, int tile, const Call& call) {
  if (kernel == 2 && tile == 4) return call(Kernel<4, 2>{});
  if (kernel == 3 && tile == 3) return call(Kernel<3, 3>{});
  if (kernel == 3 && tile == 4) return call(Kernel<4, 3>{});
  if (kernel == 5 && tile == 2) return call(Kernel<2, 5>{});
  return call(Kernel<2, 2>{});
}

bool has(int k, int m) {
  return (k == 2 && (m == 2 || m == 4)) || (k == 3 && (m == 3 || m == 4)) || (k == 5 && m == 2);
}
int64_t workspace(const Correlation& c) {
  return with_kernel(c.kernel, c.tile, [&](auto k) { return k.workspace(c); });
}
void weights(const Correlation& c, const float* w, float* u, int64_t from, int64_t to) {
  with_kernel(c.kernel, c.tile, [&](auto k) { k.weights(c, w, u, from, to); });
}
void weights_back(const Correlation& c, const float* du, float* dw, int64_t from, int64_t to) {
  with_kernel(c.kernel, c.tile, [&](auto k) { k.weights_back(c, du, dw, from, to); });
}
void forward(const Correlation* c, int parts, const float* x, const float* u, const float* bias,
             Activation act, float* y, int64_t from, int64_t to, float* work, Gemm gemm) {
  with_kernel(c->kernel, c->tile,
              [&](auto k) { k.forward(c, parts, x, u, bias, act, y, from, to, work, gemm); });
}
void backward(const Correlation* c, int parts, const float* x, const float* u, const float* y,
              const float* dy, Activation act, float* dx, float* du, float* dbias, int64_t from,
              int64_t to, float* work, Gemm gemm) {
  with_kernel(c->kernel, c->tile, [&](auto k) {
    k.backward(c, parts, x, u, y, dy, act, dx, du, dbias, from, to, work, gemm);
  });
}

}  // namespace

const Kernels* DEEPSIM_ISA() {
  static const Kernels table = {weights, weights_back, forward, backward, workspace, has};
  return &table;
}

}  // namespace deepsim
