// Compiled once for each instruction set (DEEPSIM_SSIM names the table that comes out). No standard
// container: its code, compiled for the newer processor, could become the whole program's.
#include "ssim_kernel.h"

namespace deepsim {
namespace {

constexpr int64_t TAPS = SSIM_TAPS, QUANTITIES = 5, LANES = 16;

// Which filtered quantity.
enum { MX, MY, XX, YY, XY };

// Rows start on a cache line, whatever the width.
int64_t padded(int64_t width) { return (width + 2 * TAPS + 15) / 16 * 16; }

// One row of both images through the window's row: five quantities at each whole window.
void along_row(const float* __restrict x, const float* __restrict y, const float* __restrict taps,
               int64_t columns, float* __restrict to, int64_t stride) {
  float* __restrict mx = to + MX * stride;
  float* __restrict my = to + MY * stride;
  float* __restrict xx = to + XX * stride;
  float* __restrict yy = to + YY * stride;
  float* __restrict xy = to + XY * stride;
  for (int64_t j = 0; j < columns; ++j) {
    float a = 0, b = 0, aa = 0, bb = 0, ab = 0;
    for (int64_t k = 0; k < TAPS; ++k) {
      const float p = x[j + k], q = y[j + k], wp = taps[k] * p, wq = taps[k] * q;
      a += wp;
      b += wq;
      aa += wp * p;
      bb += wq * q;
      ab += wp * q;
    }
    mx[j] = a;
    my[j] = b;
    xx[j] = aa;
    yy[j] = bb;
    xy[j] = ab;
  }
}

// `count` columns of TAPS rows through the window's column. Row k of the window is rows[k].
void along_column(const float* const* rows, const float* __restrict taps, int64_t count,
                  float* __restrict to) {
  const float* __restrict r0 = rows[0];
  const float* __restrict r1 = rows[1];
  const float* __restrict r2 = rows[2];
  const float* __restrict r3 = rows[3];
  const float* __restrict r4 = rows[4];
  const float* __restrict r5 = rows[5];
  const float* __restrict r6 = rows[6];
  const float* __restrict r7 = rows[7];
  const float* __restrict r8 = rows[8];
  const float* __restrict r9 = rows[9];
  const float* __restrict r10 = rows[10];
  for (int64_t j = 0; j < count; ++j)
    to[j] = taps[0] * (r0[j] + r10[j]) + taps[1] * (r1[j] + r9[j]) + taps[2] * (r2[j] + r8[j]) +
            taps[3] * (r3[j] + r7[j]) + taps[4] * (r4[j] + r6[j]) + taps[5] * r5[j];
}

// Both similarities of one row of windows, from its filtered quantities.
void similarities(const float* q, int64_t stride, int64_t columns, float c1, float c2,
                  float* __restrict l, float* __restrict cs) {
  const float* __restrict mx = q + MX * stride;
  const float* __restrict my = q + MY * stride;
  const float* __restrict xx = q + XX * stride;
  const float* __restrict yy = q + YY * stride;
  const float* __restrict xy = q + XY * stride;
  for (int64_t j = 0; j < columns; ++j) {
    const float a = mx[j], b = my[j];
    const float sxx = xx[j] - a * a, syy = yy[j] - b * b, sxy = xy[j] - a * b;
    l[j] = (2 * a * b + c1) / (a * a + b * b + c1);
    // Rounding may leave less than nothing of a variance of huge values.
    const float spread = sxx + syy;
    cs[j] = (2 * sxy + c2) / ((spread > 0 ? spread : 0) + c2);
  }
}

// The derivatives with regard to mx, E(x^2) and E(xy) at one row of windows.
void derivatives(const float* q, int64_t stride, int64_t columns, float c1, float c2, float by_ssim,
                 float by_cs, float* __restrict da, float* __restrict daa, float* __restrict dab) {
  const float* __restrict mx = q + MX * stride;
  const float* __restrict my = q + MY * stride;
  const float* __restrict xx = q + XX * stride;
  const float* __restrict yy = q + YY * stride;
  const float* __restrict xy = q + XY * stride;
  for (int64_t j = 0; j < columns; ++j) {
    const float a = mx[j], b = my[j];
    const float sxx = xx[j] - a * a, syy = yy[j] - b * b, sxy = xy[j] - a * b;
    const float spread = sxx + syy;
    const float below_l = 1 / (a * a + b * b + c1), below_cs = 1 / ((spread > 0 ? spread : 0) + c2);
    const float l = (2 * a * b + c1) * below_l, cs = (2 * sxy + c2) * below_cs;
    const float towards_cs = by_ssim * l + by_cs;
    const float square = -towards_cs * cs * below_cs, product = 2 * towards_cs * below_cs;
    da[j] = 2 * by_ssim * cs * (b - l * a) * below_l - 2 * a * square - b * product;
    daa[j] = square;
    dab[j] = product;
  }
}

double sum(const float* values, int64_t count) {
  float lanes[LANES] = {};
  const int64_t whole = count / LANES * LANES;
  for (int64_t i = 0; i < whole; i += LANES)
    for (int64_t k = 0; k < LANES; ++k) lanes[k] += values[i + k];
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += values[i];
  double total = 0;
  for (int64_t k = 0; k < LANES; ++k) total += lanes[k];
  return total;
}

// Filters whole windows and gives each row of them to `see(row, quantities, stride)`. `ring` holds
// TAPS rows of the five quantities, `row` one.
template <class See>
void windows(const SsimPlanes& p, float* ring, float* row, const See& see) {
  const int64_t stride = padded(p.width), columns = p.columns();
  const float* window[TAPS];
  for (int64_t i = 0; i < p.height; ++i) {
    along_row(p.x + i * p.width, p.y + i * p.width, p.taps, columns,
              ring + i % TAPS * QUANTITIES * stride, stride);
    if (i < TAPS - 1) continue;
    const int64_t first = i - (TAPS - 1);
    for (int64_t k = 0; k < TAPS; ++k) window[k] = ring + (first + k) % TAPS * QUANTITIES * stride;
    for (int64_t q = 0; q < QUANTITIES; ++q) {
      along_column(window, p.taps, columns, row + q * stride);
      for (int64_t k = 0; k < TAPS; ++k) window[k] += stride;
    }
    see(first, row, stride);
  }
}

SsimMeans forward(const SsimPlanes& p, float* workspace) {
  const int64_t stride = padded(p.width), columns = p.columns();
  float* row = workspace + TAPS * QUANTITIES * stride;
  float *l = row + QUANTITIES * stride, *cs = l + stride;
  SsimMeans sums = {0, 0};
  windows(p, workspace, row, [&](int64_t, const float* q, int64_t s) {
    similarities(q, s, columns, p.c1, p.c2, l, cs);
    sums.cs += sum(cs, columns);
    for (int64_t j = 0; j < columns; ++j) l[j] *= cs[j];
    sums.ssim += sum(l, columns);
  });
  const double count = static_cast<double>(p.rows()) * static_cast<double>(columns);
  return {sums.ssim / count, sums.cs / count};
}

void backward(const SsimPlanes& p, double by_ssim, double by_cs, float* dx, float* workspace) {
  const int64_t stride = padded(p.width), columns = p.columns(), rows = p.rows();
  const double count = static_cast<double>(rows) * static_cast<double>(columns);
  const float ssim = static_cast<float>(by_ssim / count), cs = static_cast<float>(by_cs / count);
  float* row = workspace + TAPS * QUANTITIES * stride;
  float* nothing = row + QUANTITIES * stride;  // a row of zeros: windows beyond the image
  float* filtered = nothing + stride;          // three rows with zeros on both sides
  float* maps = filtered + 3 * stride;         // three planes of derivatives
  for (int64_t j = 0; j < 4 * stride; ++j) nothing[j] = 0;
  windows(p, workspace, row, [&](int64_t at, const float* q, int64_t s) {
    float* to = maps + at * 3 * stride;
    derivatives(q, s, columns, p.c1, p.c2, ssim, cs, to, to + stride, to + 2 * stride);
  });
  const float* window[TAPS];
  for (int64_t i = 0; i < p.height; ++i) {
    for (int64_t m = 0; m < 3; ++m) {
      for (int64_t k = 0; k < TAPS; ++k) {
        const int64_t at = i - (TAPS - 1) + k;
        window[k] = at < 0 || at >= rows ? nothing : maps + (at * 3 + m) * stride;
      }
      along_column(window, p.taps, columns, filtered + m * stride + TAPS - 1);
    }
    const float* __restrict a = filtered;
    const float* __restrict aa = filtered + stride;
    const float* __restrict ab = filtered + 2 * stride;
    const float* __restrict x = p.x + i * p.width;
    const float* __restrict y = p.y + i * p.width;
    const float* __restrict taps = p.taps;
    float* __restrict to = dx + i * p.width;
    for (int64_t j = 0; j < p.width; ++j) {
      float by_mean = 0, by_square = 0, by_product = 0;
      for (int64_t k = 0; k < TAPS; ++k) {
        by_mean += taps[k] * a[j + k];
        by_square += taps[k] * aa[j + k];
        by_product += taps[k] * ab[j + k];
      }
      to[j] = by_mean + 2 * x[j] * by_square + y[j] * by_product;
    }
  }
}

int64_t workspace(int64_t height, int64_t width) {
  // Ring, filtered row, zeros and rows of the way back, planes of derivatives.
  return padded(width) * (TAPS * QUANTITIES + QUANTITIES + 4 + 3 * height);
}

}  // namespace

const SsimKernels* DEEPSIM_SSIM() {
  static const SsimKernels table = {forward, backward, workspace};
  return &table;
}

}  // namespace deepsim
