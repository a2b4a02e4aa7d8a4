// Compiled once for each instruction set.
#include "maps.h"

#include <cmath>

#include "vector.h"

namespace deepsim::bf16 {
namespace {

constexpr int64_t LANES = 16;

#if defined(__AVX512BF16__)
using V = __m512;
inline V load(const Half* p, int64_t n) { return load_halves(p, first_lanes(n)); }
inline void store(Half* p, V v, int64_t n) { store_halves(p, first_lanes(n), v); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V v) { _mm512_storeu_ps(p, v); }
inline V power(const V& s) {  // s^-0.75; one step of Newton's method doubles rsqrt14's bits
  V r = _mm512_rsqrt14_ps(s);
  r = r * (1.5f - 0.5f * s * r * r);
  return r * _mm512_sqrt_ps(r);
}
#else
typedef float V __attribute__((vector_size(LANES * 4), aligned(4)));
inline V load(const Half* p, int64_t n) {
  V v{};
  for (int64_t i = 0; i < std::min(n, LANES); ++i) v[i] = to_float(p[i]);
  return v;
}
inline void store(Half* p, const V& v, int64_t n) {
  for (int64_t i = 0; i < std::min(n, LANES); ++i) p[i] = to_half(v[i]);
}
inline V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, const V& v) { std::memcpy(p, &v, sizeof v); }
inline V power(const V& s) {
  V p;
  for (int64_t i = 0; i < LANES; ++i) {
    const float r = 1 / std::sqrt(s[i]);
    p[i] = r * std::sqrt(r);
  }
  return p;
}
#endif

void max_pool(const Pool& p, const Half* x, Half* y, uint8_t* index) {
  for (int64_t oy = 0; oy < p.out_height; ++oy)
    for (int64_t ox = 0; ox < p.out_width; ++ox) {
      const int64_t rows = std::min<int64_t>(3, p.height - 2 * oy);
      const int64_t columns = std::min<int64_t>(3, p.width - 2 * ox);
      for (int64_t c = 0; c < p.channels; c += LANES) {
        const int64_t n = p.channels - c;
        const Half* from = x + (2 * oy * p.width + 2 * ox) * p.channels + c;
#if defined(__AVX512BF16__)
        const __mmask16 m = first_lanes(n);
        V best = load(from, n);
        __m512i which = _mm512_setzero_si512();
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t k = 0; k < columns; ++k) {
            const V v = load(from + (r * p.width + k) * p.channels, n);
            // Not less or equal: a NaN wins, as in PyTorch.
            const __mmask16 more = _mm512_cmp_ps_mask(v, best, _CMP_NLE_UQ);
            best = _mm512_mask_mov_ps(best, more, v);
            which = _mm512_mask_set1_epi32(which, more, static_cast<int>(r * 3 + k));
          }
        store(y, best, n);
        _mm_mask_storeu_epi8(index, m, _mm512_cvtepi32_epi8(which));
#else
        for (int64_t i = 0; i < std::min(n, LANES); ++i) {
          float best = to_float(from[i]);
          index[i] = 0;
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t k = 0; k < columns; ++k) {
              const float v = to_float(from[(r * p.width + k) * p.channels + i]);
              if (!(v <= best)) {
                best = v;
                index[i] = static_cast<uint8_t>(r * 3 + k);
              }
            }
          y[i] = to_half(best);
        }
#endif
        const int64_t done = std::min(n, LANES);
        y += done;
        index += done;
      }
    }
}

void max_pool_back(const Pool& p, const Half* dy, const uint8_t* index, Half* dx) {
  for (int64_t y = 0; y < p.height; ++y)
    for (int64_t x = 0; x < p.width; ++x) {
      // Windows that the pixel lies in.
      const int64_t first_y = std::max<int64_t>(0, (y - 1) / 2), last_y = std::min(y / 2, p.out_height - 1);
      const int64_t first_x = std::max<int64_t>(0, (x - 1) / 2), last_x = std::min(x / 2, p.out_width - 1);
      for (int64_t c = 0; c < p.channels; c += LANES) {
        const int64_t n = std::min(LANES, p.channels - c);
        V sum{};
        for (int64_t oy = first_y; oy <= last_y; ++oy)
          for (int64_t ox = first_x; ox <= last_x; ++ox) {
            const int64_t at = (oy * p.out_width + ox) * p.channels + c;
            const auto own = static_cast<int>((y - 2 * oy) * 3 + x - 2 * ox);
#if defined(__AVX512BF16__)
            const __m128i which = _mm_maskz_loadu_epi8(first_lanes(n), index + at);
            const __mmask16 m =
                _mm_mask_cmpeq_epi8_mask(first_lanes(n), which, _mm_set1_epi8(static_cast<char>(own)));
            sum = _mm512_mask_add_ps(sum, m, sum, load(dy + at, n));
#else
            for (int64_t i = 0; i < n; ++i)
              if (index[at + i] == own) sum[i] += to_float(dy[at + i]);
#endif
          }
        store(dx + (y * p.width + x) * p.channels + c, sum, n);
      }
    }
}

// Room for two channels on each side, and for whole lanes.
constexpr int64_t EDGE = 2;
inline int64_t padded(int64_t channels) { return round_up(channels, LANES) + 2 * LANES; }

// Sum of five neighbours; `at` points at the middle one.
inline V five(const float* at) {
  return load(at - 2) + load(at - 1) + load(at) + load(at + 1) + load(at + 2);
}

struct Normaliser {
  int64_t channels;
  float alpha;
  Buffer<float> squares, inner;
  Normaliser(int64_t c, float a) : channels(c), alpha(a), squares(padded(c)), inner(padded(c)) {
    for (int64_t i = 0; i < padded(c); ++i) squares[i] = inner[i] = 0;
  }

  V scale(int64_t c) { return five(squares.data() + EDGE + c) * (alpha / 5) + 1.0f; }
  void square(const Half* x) {
    for (int64_t c = 0; c < channels; c += LANES) {
      const V v = load(x + c, channels - c);
      store(squares.data() + EDGE + c, v * v);
    }
  }
};

void lrn(const Half* x, int64_t pixels, int64_t channels, float alpha, Half* y) {
  Normaliser l(channels, alpha);
  for (int64_t p = 0; p < pixels; ++p, x += channels, y += channels) {
    l.square(x);
    for (int64_t c = 0; c < channels; c += LANES)
      store(y + c, load(x + c, channels - c) * power(l.scale(c)), channels - c);
  }
}

void lrn_back(const Half* x, const Half* dy, int64_t pixels, int64_t channels, float alpha,
              Half* dx) {
  Normaliser l(channels, alpha);
  Buffer<float> direct(padded(channels));
  for (int64_t p = 0; p < pixels; ++p, x += channels, dy += channels, dx += channels) {
    l.square(x);
    for (int64_t c = 0; c < channels; c += LANES) {
      const int64_t n = channels - c;
      const V s = l.scale(c), g = load(dy + c, n) * power(s);
      store(direct.data() + c, g);
      // Lanes beyond the last channel are zeros: no neighbour takes anything from them.
      store(l.inner.data() + EDGE + c, g * load(x + c, n) / s);
    }
    for (int64_t c = 0; c < channels; c += LANES) {
      const int64_t n = channels - c;
      const V through = five(l.inner.data() + EDGE + c) * load(x + c, n);
      store(dx + c, load(direct.data() + c) - through * (1.5f * alpha / 5), n);
    }
  }
}

}  // namespace

const MapKernels* DEEPSIM_TABLE(maps)() {
  static const MapKernels table{max_pool, max_pool_back, lrn, lrn_back};
  return &table;
}

}  // namespace deepsim::bf16
