// Fully connected layers on a batch of vectors, without libtorch.
#pragma once
#include <cstdint>

#include "plan.h"
#include "table.h"

namespace deepsim::bf16 {

// y[n][o] = sum_i x[n][i] w[o][i]: `batch` vectors of `inputs` values, `outputs` results. Rows of
// packed bf16 matrices are filled with zeros up to whole tiles.
struct Linear {
  int64_t batch, inputs, outputs;
  int64_t batch_tiles() const { return round_up(batch, TILE) / TILE; }
  int64_t batch_steps() const { return round_up(batch, DEPTH) / DEPTH; }
  int64_t input_steps() const { return round_up(inputs, DEPTH) / DEPTH; }
  int64_t output_steps() const { return round_up(outputs, DEPTH) / DEPTH; }
  int64_t input_tiles() const { return round_up(inputs, TILE) / TILE; }
  int64_t output_tiles() const { return round_up(outputs, TILE) / TILE; }
};

struct LinearKernels {
  // bf16 rows [rows][width] -> [rows filled up][width filled up]: left operands.
  void (*rows)(const Half* from, int64_t rows, int64_t width, Half* to);
  // The same, times `slope` where `sign` is not positive.
  void (*signed_rows)(const Half* from, const Half* sign, float slope, int64_t rows, int64_t width,
                      Half* to);
  // bf16 rows [rows][width] -> [width step][row tile][pair][row][2]: right operands whose columns
  // are the rows.
  void (*columns)(const Half* from, int64_t rows, int64_t width, Half* to);
  // bf16 rows [rows][width] -> [width tile][row step][pair of rows][column][2].
  void (*pairs)(const Half* from, int64_t rows, int64_t width, Half* to);
  // bf16 rows [rows][width] -> [width filled up to tiles][rows filled up to steps].
  void (*turned)(const Half* from, int64_t rows, int64_t width, Half* to);
  // Rounds fp32 rows to left operands.
  void (*round)(const float* from, int64_t rows, int64_t width, Half* to);
  // Output tiles [from, to) of y from `columns` of x; `packed` weights are rows where not null.
  void (*forward)(const Linear&, const Half* x, const float* weight, const Half* packed,
                  const float* bias, float slope, Half* y, int64_t from, int64_t to);
  // Input tiles [from, to) of dx from (signed) rows of dy.
  void (*to_inputs)(const Linear&, const Half* dy, const float* weight, Half* dx, int64_t from,
                    int64_t to);
  // Rows of output tiles [from, to) of dw from `turned` dy and `pairs` of x.
  void (*to_weights)(const Linear&, const Half* dy, const Half* x, float* dw, int64_t from,
                     int64_t to);
};

const LinearKernels* linear_amx();
const LinearKernels* linear_avx512();
const LinearKernels* linear_plain();

}  // namespace deepsim::bf16
