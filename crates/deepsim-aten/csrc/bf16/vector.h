// Rows of values between fp32 and bf16: AVX-512 where it is compiled for, otherwise plain C++.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "plan.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace deepsim::bf16 {
namespace {

// Local memory. Not std::vector: its code, compiled here for a newer processor, could be what the
// linker keeps for the whole program.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : data_(new T[static_cast<size_t>(size)]) {}
  ~Buffer() { delete[] data_; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T& operator[](int64_t i) { return data_[i]; }
  T* data() { return data_; }

 private:
  T* data_;
};

inline float to_float(Half h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
// To the nearest, ties to even; NaN stays NaN.
inline Half to_half(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Half>((bits >> 16) | 64);
  return static_cast<Half>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
// The sign bit alone does not decide: zero counts as negative, as in PyTorch's rectifiers.
inline bool positive(Half h) { return static_cast<int16_t>(h) > 0; }

#if defined(__AVX512BF16__)

inline __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << n) - 1);
}
inline __m512 widen(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
inline __m512 load_halves(const Half* p, __mmask16 m) {
  return widen(_mm256_maskz_loadu_epi16(m, p));
}
inline void store_halves(Half* p, __mmask16 m, __m512 v) {
  _mm256_mask_storeu_epi16(p, m, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

inline __mmask32 first_halves(int64_t n) {
  return n >= 32 ? 0xffffffffu : static_cast<__mmask32>((1u << n) - 1);
}
inline __m512i round_both(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// Rows of two positions, 16 channels each, as pairs (position, next position) of each channel.
inline __m512i pairs(const Half* row, const Half* next, __mmask16 m) {
  const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, row));
  const __m512i b = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, next));
  return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}

// Rows become columns: 16 x 16 values of 32 bits.
inline void transpose(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}
// to[i] = from[i], times `slope` where sign[i] is not positive.
template <bool FP32, bool SIGN>
inline void convert(Half* to, const void* from, int64_t at, const Half* sign, float slope,
                    int64_t n) {
  const auto* floats = static_cast<const float*>(from) + at;
  const auto* halves = static_cast<const Half*>(from) + at;
  if constexpr (SIGN) sign += at;
  const __m512 slopes = _mm512_set1_ps(slope);
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 m = first_halves(n - i);
    __m512i v;
    if constexpr (FP32) {
      const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(m), floats + i);
      const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(m >> 16), floats + i + 16);
      v = round_both(low, high);
    } else {
      v = _mm512_maskz_loadu_epi16(m, halves + i);
    }
    if constexpr (SIGN) {
      const __m512i s = _mm512_maskz_loadu_epi16(m, sign + i);
      const __mmask32 low = _mm512_cmple_epi16_mask(s, _mm512_setzero_si512());
      if (slope == 0) {
        v = _mm512_maskz_mov_epi16(~low, v);
      } else {
        const __m512 a = _mm512_mul_ps(widen(_mm512_castsi512_si256(v)), slopes);
        const __m512 b = _mm512_mul_ps(widen(_mm512_extracti64x4_epi64(v, 1)), slopes);
        v = _mm512_mask_mov_epi16(v, low, round_both(a, b));
      }
    }
    _mm512_mask_storeu_epi16(to + i, m, v);
  }
}

#else

template <bool FP32, bool SIGN>
inline void convert(Half* to, const void* from, int64_t at, const Half* sign, float slope,
                    int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float v = FP32 ? static_cast<const float*>(from)[at + i]
                   : to_float(static_cast<const Half*>(from)[at + i]);
    v = to_float(to_half(v));
    if (SIGN && !positive(sign[at + i])) v = slope == 0 ? 0 : v * slope;
    to[i] = to_half(v);
  }
}

#endif

}  // namespace
}  // namespace deepsim::bf16
