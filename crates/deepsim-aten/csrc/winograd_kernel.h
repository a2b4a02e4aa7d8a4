// Winograd convolution on channels-last fp32 maps: the arithmetic, without libtorch.
//
// A convolution of stride 1 with an r x r kernel is computed on tiles of m x m outputs as
//   Y = A^T [ (G w G^T) . (B^T d B) ] A
// (Winograd 1980; Lavin & Gray 2015), where the products of the T x T = (m+r-1)^2 points are
// summed over the input channels: T^2 matrix products instead of m^2 r^2 multiplications per
// channel pair. The backward passes are the exact transposes of that bilinear map:
//   dU = (B^T d B)^T (A dY A^T),  dw = G^T dU G,  dd = B [ (A dY A^T) U^T ] B^T.
#pragma once
#include <cstdint>

namespace deepsim {

// Floats from one point's matrix to the next. Powers of two would send all points of a tile to
// the same cache sets.
inline int64_t plane(int64_t floats) { return floats + 16; }

// One stride-1 correlation: y(oy, ox) = sum_ij w(i, j) x(oy + i - pad_y, ox + j - pad_x).
// A transposed convolution of stride 2 is four of them, one for each parity of the output.
struct Correlation {
  int kernel;                         // r: 2, 3 or 5
  int tile;                           // m
  int64_t images, height, width;      // of x
  int64_t out_height, out_width;      // of this correlation's outputs
  int64_t in_channels, out_channels;  // in all groups together
  int64_t groups;
  int64_t pad_y, pad_x;
  // Output (oy, ox) lies at row oy*step + offset_y, column ox*step + offset_x of a map with
  // map_height x map_width positions.
  int64_t step, offset_y, offset_x, map_height, map_width;
  // w(out, in, i, j) = weight[base + out*s_out + in*s_in + i*s_i + j*s_j], `in` within the group.
  int64_t base, s_out, s_in, s_i, s_j;

  int points() const { return (kernel + tile - 1) * (kernel + tile - 1); }
  int64_t tiles_y() const { return (out_height + tile - 1) / tile; }
  int64_t tiles_x() const { return (out_width + tile - 1) / tile; }
  int64_t tiles() const { return tiles_y() * tiles_x(); }
  // Floats of the transformed weights.
  int64_t transformed() const {
    return points() * groups * plane(in_channels / groups * (out_channels / groups));
  }
};

// What follows the convolution: y = v > 0 ? v : slope * v. Slope 1 means nothing follows.
struct Activation {
  float slope;
};

// C = alpha op(A) op(B) + beta C in column-major order, as BLAS has it.
using Gemm = void (*)(const char*, const char*, const int*, const int*, const int*, const float*,
                      const float*, const int*, const float*, const int*, const float*, float*,
                      const int*);

struct Kernels {
  // Transforms the weights of input channels [from, to) of every group.
  void (*weights)(const Correlation&, const float* weight, float* u, int64_t from, int64_t to);
  // The transpose of that: gradient of the transformed weights to that of the weights.
  void (*weights_back)(const Correlation&, const float* du, float* dweight, int64_t from,
                       int64_t to);
  // Tiles [from, to) counted over all images, of all parts (which differ in offsets alone);
  // `u` holds their transformed weights one after the other.
  void (*forward)(const Correlation* parts, int count, const float* x, const float* u,
                  const float* bias, Activation, float* y, int64_t from, int64_t to,
                  float* workspace, Gemm);
  // Writes du, and adds to dx and dbias, where they are not null. `y` is the activated output.
  void (*backward)(const Correlation* parts, int count, const float* x, const float* u,
                   const float* y, const float* dy, Activation, float* dx, float* du, float* dbias,
                   int64_t from, int64_t to, float* workspace, Gemm);
  // Floats of workspace for one thread.
  int64_t (*workspace)(const Correlation&);
  // Whether there is code for this kernel and tile.
  bool (*has)(int kernel, int tile);
};

const Kernels* kernels_avx512();
const Kernels* kernels_avx2();
const Kernels* kernels_plain();

}  // namespace deepsim
