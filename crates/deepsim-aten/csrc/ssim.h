// Structural similarity, forward and backward in a few passes over memory.
#pragma once
#include <ATen/ATen.h>

namespace deepsim {

// Of two fp32 CPU tensors [N,C,H,W] of one shape, at least 11x11: [2,N,C], the mean over positions
// of the structural similarity and of its contrast-structure part. Differentiable once with regard
// to both.
at::Tensor ssim(const at::Tensor& x, const at::Tensor& y, double c1, double c2);

}  // namespace deepsim
