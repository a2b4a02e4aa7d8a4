// Part of kernel.cpp: maps and weights in the order in which products read them.
#pragma once
#include "kernel.h"
#include "vector.h"

namespace deepsim::bf16 {
namespace {

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

}  // namespace
}  // namespace deepsim::bf16
