// Structural similarity of two planes: the arithmetic, without libtorch.
//
// Means, squares and products are filtered by a Gaussian of 11 taps, rows first, whole windows only
// (Wang et al. 2004):
//   l = (2 mx my + C1) / (mx^2 + my^2 + C1),  cs = (2 sxy + C2) / (sx^2 + sy^2 + C2),  ssim = l cs.
// The gradient does not go back through five filters as autograd's would: the derivatives with
// regard to the three filtered maps that contain x are filtered once each by the transposed window,
//   dx = W'[d/dmx] + 2 x W'[d/dE(x^2)] + y W'[d/dE(xy)].
#pragma once
#include <cstdint>

namespace deepsim {

constexpr int64_t SSIM_TAPS = 11;

struct SsimPlanes {
  const float *x, *y;  // height x width, rows one after the other
  int64_t height, width;
  float c1, c2;
  const float* taps;  // SSIM_TAPS of them, symmetric

  int64_t rows() const { return height - SSIM_TAPS + 1; }
  int64_t columns() const { return width - SSIM_TAPS + 1; }
};

// Means over all whole windows.
struct SsimMeans {
  double ssim, cs;
};

struct SsimKernels {
  SsimMeans (*forward)(const SsimPlanes&, float* workspace);
  // Writes the gradient with regard to x, where the mean ssim counts `by_ssim` and the mean cs
  // counts `by_cs`.
  void (*backward)(const SsimPlanes&, double by_ssim, double by_cs, float* dx, float* workspace);
  // Floats of workspace for one thread.
  int64_t (*workspace)(int64_t height, int64_t width);
};

const SsimKernels* ssim_kernels_avx512();
const SsimKernels* ssim_kernels_avx2();
const SsimKernels* ssim_kernels_plain();

}  // namespace deepsim
