// Max pooling and local response normalisation of channels-last bf16 maps, without libtorch.
#pragma once
#include <cstdint>

#include "plan.h"
#include "table.h"

namespace deepsim::bf16 {

// Windows of 3 x 3 at a stride of 2, cut off at the map's edges.
struct Pool {
  int64_t channels, height, width, out_height, out_width;
};

struct MapKernels {
  // One image. `index` says which of the nine won, the first of equals.
  void (*max_pool)(const Pool&, const Half* x, Half* y, uint8_t* index);
  void (*max_pool_back)(const Pool&, const Half* dy, const uint8_t* index, Half* dx);
  // y = x (1 + alpha/5 sum of x^2 over five channels)^-0.75, computed in fp32.
  void (*lrn)(const Half* x, int64_t pixels, int64_t channels, float alpha, Half* y);
  void (*lrn_back)(const Half* x, const Half* dy, int64_t pixels, int64_t channels, float alpha,
                   Half* dx);
};

const MapKernels* maps_amx();
const MapKernels* maps_avx512();
const MapKernels* maps_plain();

}  // namespace deepsim::bf16
