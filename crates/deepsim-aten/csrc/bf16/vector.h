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

// to[i] = from[i], times `slope` where sign[i] is not positive.
template <bool FP32, bool SIGN>
inline void convert(Half* to, const void* from, int64_t at, const Half* sign, float slope,
                    int64_t n) {
  const auto* floats = static_cast<const float*>(from) + at;
  const auto* halves = static_cast<const Half*>(from) + at;
  if constexpr (SIGN) sign += at;
  const __m512 slopes = _mm512_set1_ps(slope);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = first_lanes(n - i);
    if constexpr (!FP32 && !SIGN) {
      _mm256_mask_storeu_epi16(to + i, m, _mm256_maskz_loadu_epi16(m, halves + i));
    } else {
      __m512 v = FP32 ? _mm512_maskz_loadu_ps(m, floats + i) : load_halves(halves + i, m);
      if constexpr (SIGN) {
        const __m256i s = _mm256_maskz_loadu_epi16(m, sign + i);
        const __mmask16 low = _mm256_cmple_epi16_mask(s, _mm256_setzero_si256());
        v = slope == 0 ? _mm512_maskz_mov_ps(static_cast<__mmask16>(~low), v)
                       : _mm512_mask_mul_ps(v, low, v, slopes);
      }
      store_halves(to + i, m, v);
    }
  }
}

#else

template <bool FP32, bool SIGN>
inline void convert(Half* to, const void* from, int64_t at, const Half* sign, float slope,
                    int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float v = FP32 ? static_cast<const float*>(from)[at + i]
                   : to_float(static_cast<const Half*>(from)[at + i]);
    if (SIGN && !positive(sign[at + i])) v = slope == 0 ? 0 : v * slope;
    to[i] = to_half(v);
  }
}

#endif

}  // namespace
}  // namespace deepsim::bf16
