// Rows that are compared by their products: coded in bf16 in the order in which the matrix unit
// reads them, and multiplied. Without libtorch; compiled as often as kernel.h is.
#pragma once
#include <cstdint>

#include "plan.h"
#include "table.h"

namespace deepsim::bf16 {

constexpr int64_t BLOCK_ROWS = 2 * TILE;  // rows that are coded and multiplied together
constexpr int64_t STEP_HALVES = BLOCK_ROWS * DEPTH;
constexpr int64_t BLOCK_SUMS = BLOCK_ROWS * BLOCK_ROWS;

// What is known of a row x of which a centre c was taken away: with u the power of two at or below
// the largest magnitude of x - c (1 for 0), (x - c) / u rounded to fp32 is coded.
struct RowMeasure {
  double unit;      // u
  double squares;   // of x - c; not finite where a value of x is not, and the code is zeros then
  double residual;  // squares of what the code leaves out of (x - c) / u, within 2^-12 of itself
  double coded;     // squares of the code
};

struct RowKernels {
  // Codes `n` <= 32 rows of `dim` values as one block [step of 32 values][row][32], filled up with
  // zeros. `centre` is filled up with zeros to whole steps; `to` is aligned to cache lines.
  void (*code)(const float* rows, int64_t n, int64_t dim, const double* centre, Half* to,
               RowMeasure* measures);
  // Blocks of rows -> [block][step][tile][pair of values][row][2]: right operands whose columns are
  // the rows.
  void (*columns)(const Half* rows, int64_t blocks, int64_t steps, Half* to);
  // Products of blocks of rows with blocks of columns, in fp32: [block of rows][block of columns]
  // [tile of rows][tile of columns][row][column].
  void (*products)(const Half* rows, int64_t blocks, int64_t steps, const Half* columns,
                   int64_t column_blocks, float* out);
};

const RowKernels* rows_amx();
const RowKernels* rows_avx512();
const RowKernels* rows_plain();

}  // namespace deepsim::bf16
