// The arithmetic of bf16 convolutions on channels-last maps, without libtorch. Compiled three times:
// for processors with AMX, for those with AVX-512's bf16 instruction alone, and in plain C++ that
// computes the same (slowly), for tests anywhere.
#pragma once
#include <cstdint>

#include "plan.h"
#include "table.h"

namespace deepsim::bf16 {

// A map that is read: a window of a larger one that is zero outside.
struct Source {
  const void* data;  // channels-last, all images
  bool fp32;         // else bf16
  // The activated output whose sign chooses between a gradient and `slope` times it; may be null.
  const Half* sign;
  float slope;
  int64_t top, left, height, width, channels;
};

// A map that is written: a window of what is computed.
struct Target {
  void* data;
  bool fp32;
  const float* bias;  // one for each channel; may be null
  float slope;        // v > 0 ? v : slope * v
  int64_t top, left, height, width, channels;
};

struct Kernels {
  // Packs images [first, first + count) as `layout` says into layout.halves(count) halves.
  void (*pack)(const Layout& layout, const Source&, int64_t first, int64_t count, Half* to);
  // Correlates packed images with packed weights (of all groups) into images from `first` on.
  void (*correlate)(const Correlation&, const Half* packed, int64_t first, int64_t count,
                    const Half* weights, const Target&);
  // Packs weights [from, to) of one group's part.
  void (*weights)(const int32_t* map, const float* weight, Half* to, int64_t from, int64_t end);
  // Adds to the sums of all groups. `work` holds work(count) halves.
  void (*gradient)(const WeightGradient&, const Half* big, const Half* small, int64_t count,
                   Half* work, float* sums);
  int64_t (*work)(const WeightGradient&, int64_t count);
  // Adds the values of each of `channels` over rows to `sums`.
  void (*add_rows)(const Half* rows, int64_t count, int64_t channels, float* sums);
};

const Kernels* kernels_amx();
const Kernels* kernels_avx512();
const Kernels* kernels_plain();

}  // namespace deepsim::bf16
