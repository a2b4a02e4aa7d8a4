// Compiled once for each instruction set (DEEPSIM_ISA names the table that comes out).
#include "rows.h"

#include <cmath>

#include "tiles.h"
#include "vector.h"

namespace deepsim::bf16 {
namespace {

// The power of two at or below a positive number; 1 for 0.
double unit_of(double largest) { return largest > 0 ? std::ldexp(1.0, std::ilogb(largest)) : 1.0; }

#if defined(__AVX512BF16__)

// Eight differences at a time, of which four make up a step.
inline __m512d difference(__m512 x, int half, const double* centre) {
  const __m512d wide = _mm512_cvtps_pd(
      half ? _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1))
           : _mm512_castps512_ps256(x));
  return _mm512_sub_pd(wide, _mm512_loadu_pd(centre));
}

inline __m512 joined(__m256 low, __m256 high) {
  return _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(low)),
                                             _mm256_castps_pd(high), 1));
}

inline __m512d add_squares(__m512 v, __m512d sum) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
  const __m512d high =
      _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
  return _mm512_fmadd_pd(high, high, _mm512_fmadd_pd(low, low, sum));
}

RowMeasure code_row(const float* row, int64_t dim, const double* centre, Half* to) {
  const int64_t steps = round_up(dim, DEPTH) / DEPTH;
  __m512d largest[2] = {}, squares[4] = {};
  for (int64_t k = 0; k < steps; ++k) {
    const __mmask32 m = first_halves(dim - k * DEPTH);
    for (int part = 0; part < 2; ++part) {
      const __m512 x = _mm512_maskz_loadu_ps(static_cast<__mmask16>(m >> 16 * part),
                                             row + k * DEPTH + 16 * part);
      const double* c = centre + k * DEPTH + 16 * part;
      for (int half = 0; half < 2; ++half) {
        const __m512d d = difference(x, half, c + 8 * half);
        squares[2 * part + half] = _mm512_fmadd_pd(d, d, squares[2 * part + half]);
        largest[part] = _mm512_max_pd(largest[part], _mm512_abs_pd(d));
      }
    }
  }
  RowMeasure measure{};
  measure.squares = _mm512_reduce_add_pd(_mm512_add_pd(_mm512_add_pd(squares[0], squares[1]),
                                                       _mm512_add_pd(squares[2], squares[3])));
  if (!std::isfinite(measure.squares)) {
    for (int64_t k = 0; k < steps; ++k)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to + k * STEP_HALVES), _mm512_setzero_si512());
    return measure;
  }
  measure.unit = unit_of(_mm512_reduce_max_pd(_mm512_max_pd(largest[0], largest[1])));
  const __m512d inverse = _mm512_set1_pd(1.0 / measure.unit);
  // Sums in fp32 are carried over before their roundings can add up to what is promised.
  constexpr int64_t CARRY = 256;
  __m512d residual = _mm512_setzero_pd(), coded[2] = {};
  for (int64_t begin = 0; begin < steps; begin += CARRY) {
    __m512 rest[2] = {};
    for (int64_t k = begin; k < std::min(begin + CARRY, steps); ++k) {
      const __mmask32 m = first_halves(dim - k * DEPTH);
      __m512 v[2];
      for (int part = 0; part < 2; ++part) {
        const __m512 x = _mm512_maskz_loadu_ps(static_cast<__mmask16>(m >> 16 * part),
                                               row + k * DEPTH + 16 * part);
        const double* c = centre + k * DEPTH + 16 * part;
        v[part] = joined(_mm512_cvtpd_ps(_mm512_mul_pd(difference(x, 0, c), inverse)),
                         _mm512_cvtpd_ps(_mm512_mul_pd(difference(x, 1, c + 8), inverse)));
      }
      const __m512i h = round_both(v[0], v[1]);
      // Past the caches: whole lines that are read much later.
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to + k * STEP_HALVES), h);
      const __m512 q[2] = {widen(_mm512_castsi512_si256(h)),
                           widen(_mm512_extracti64x4_epi64(h, 1))};
      for (int part = 0; part < 2; ++part) {
        const __m512 r = _mm512_sub_ps(v[part], q[part]);
        rest[part] = _mm512_fmadd_ps(r, r, rest[part]);
        coded[part] = add_squares(q[part], coded[part]);
      }
    }
    const __m512 both = _mm512_add_ps(rest[0], rest[1]);
    residual = _mm512_add_pd(
        residual,
        _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(both)),
                      _mm512_cvtps_pd(_mm256_castpd_ps(
                          _mm512_extractf64x4_pd(_mm512_castps_pd(both), 1)))));
  }
  measure.residual = _mm512_reduce_add_pd(residual);
  measure.coded = _mm512_reduce_add_pd(_mm512_add_pd(coded[0], coded[1]));
  return measure;
}

#else

RowMeasure code_row(const float* row, int64_t dim, const double* centre, Half* to) {
  const auto at = [&](int64_t i) -> Half& { return to[i / DEPTH * STEP_HALVES + i % DEPTH]; };
  for (int64_t i = 0; i < round_up(dim, DEPTH); ++i) at(i) = 0;
  RowMeasure measure{};
  double largest = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double d = static_cast<double>(row[i]) - centre[i];
    measure.squares += d * d;
    largest = std::max(largest, std::abs(d));
  }
  if (!std::isfinite(measure.squares)) return measure;
  measure.unit = unit_of(largest);
  for (int64_t i = 0; i < dim; ++i) {
    const auto v =
        static_cast<float>((static_cast<double>(row[i]) - centre[i]) * (1.0 / measure.unit));
    at(i) = to_half(v);
    const float q = to_float(at(i)), r = v - q;
    measure.residual += static_cast<double>(r) * r;
    measure.coded += static_cast<double>(q) * q;
  }
  return measure;
}

#endif

void code(const float* rows, int64_t n, int64_t dim, const double* centre, Half* to,
          RowMeasure* measures) {
  for (int64_t r = 0; r < n; ++r)
    measures[r] = code_row(rows + r * dim, dim, centre, to + r * DEPTH);
  const int64_t steps = round_up(dim, DEPTH) / DEPTH;
  for (int64_t k = 0; n < BLOCK_ROWS && k < steps; ++k)
    std::memset(to + k * STEP_HALVES + n * DEPTH, 0,
                static_cast<size_t>((BLOCK_ROWS - n) * DEPTH) * sizeof(Half));
#if defined(__AVX512BF16__)
  _mm_sfence();  // before another thread reads what went past the caches
#endif
}

void columns(const Half* rows, int64_t blocks, int64_t steps, Half* to) {
  constexpr int64_t SIZE = TILE * DEPTH;
  for (int64_t tile = 0; tile < 2 * blocks * steps; ++tile, rows += SIZE, to += SIZE)
    for (int64_t r = 0; r < TILE; ++r)
      for (int64_t e = 0; e < DEPTH; e += 2)
        std::memcpy(to + e * TILE + 2 * r, rows + r * DEPTH + e, 2 * sizeof(Half));
}

// Halves of columns that stay in the second-level cache while a group of rows passes; their sums
// and the next rows share it.
constexpr int64_t RESIDENT = 256 << 10;
// Steps of which one block of rows stays in the first-level cache.
constexpr int64_t MOST_STEPS = 12, FEWEST_STEPS = 4;
// Steps by which columns are fetched into the first-level cache in advance.
constexpr int64_t AHEAD = 2;

// Adds `steps` steps of 32 rows times 32 columns to their sums, or begins them. `after`: columns
// that are multiplied next.
inline void add_steps(const Half* rows, const Half* columns, int64_t steps, const Half* after,
                      float* sums, int64_t before) {
  constexpr int64_t HALVES = TILE * DEPTH, SUMS = TILE * TILE;
  memory_barrier();
  if (before) {
    TILE_LOAD(0, sums, 64);
    TILE_LOAD(1, sums + SUMS, 64);
    TILE_LOAD(2, sums + 2 * SUMS, 64);
    TILE_LOAD(3, sums + 3 * SUMS, 64);
  } else {
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
  }
  for (int64_t k = 0; k < steps; ++k, rows += STEP_HALVES, columns += STEP_HALVES) {
    prefetch(k + AHEAD < steps ? columns + AHEAD * STEP_HALVES
                               : after + (k + AHEAD - steps) * STEP_HALVES,
             STEP_HALVES);
    TILE_LOAD(4, rows, 64);
    TILE_LOAD(6, columns, 64);
    TILE_PRODUCT(0, 4, 6);
    TILE_LOAD(7, columns + HALVES, 64);
    TILE_PRODUCT(1, 4, 7);
    TILE_LOAD(5, rows + HALVES, 64);
    TILE_PRODUCT(2, 5, 6);
    TILE_PRODUCT(3, 5, 7);
  }
  TILE_STORE(0, sums, 64);
  TILE_STORE(1, sums + SUMS, 64);
  TILE_STORE(2, sums + 2 * SUMS, 64);
  TILE_STORE(3, sums + 3 * SUMS, 64);
}

void products(const Half* rows, int64_t blocks, int64_t steps, const Half* columns,
              int64_t column_blocks, float* out) {
  [[maybe_unused]] const Tiles set_up;
  const int64_t most = std::clamp(RESIDENT / (column_blocks * STEP_HALVES), FEWEST_STEPS, MOST_STEPS);
  for (int64_t k = 0; k < steps; k += most) {
    const int64_t some = std::min(most, steps - k);
    for (int64_t b = 0; b < blocks; ++b) {
      const Half* left = rows + (b * steps + k) * STEP_HALVES;
      // What is multiplied next comes from memory meanwhile.
      const bool last = b + 1 == blocks;
      const Half* next = last ? rows + (k + some) * STEP_HALVES : left + steps * STEP_HALVES;
      const int64_t lines = last && k + some == steps ? 0 : some * BLOCK_ROWS;
      for (int64_t c = 0; c < column_blocks; ++c) {
        fetch_soon(next + lines * c / column_blocks * DEPTH,
                   (lines * (c + 1) / column_blocks - lines * c / column_blocks) * DEPTH);
        const Half* right = columns + (c * steps + k) * STEP_HALVES;
        const Half* after = columns + ((c + 1) % column_blocks * steps + k) * STEP_HALVES;
        add_steps(left, right, some, after, out + (b * column_blocks + c) * BLOCK_SUMS, k);
      }
    }
  }
}

}  // namespace

const RowKernels* DEEPSIM_TABLE(rows)() {
  static const RowKernels table{code, columns, products};
  return &table;
}

}  // namespace deepsim::bf16
