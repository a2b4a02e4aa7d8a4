// Squared distance of two tensors in one pass over them, forward and backward.
#pragma once
#include <ATen/ATen.h>

namespace deepsim {

// sum (a - b)^2 of two CPU tensors of one shape in fp32 or bf16, as an fp32 scalar; the sum of each
// piece of 4096 values is carried over to fp64. Differentiable once with regard to both.
at::Tensor squared_distance(const at::Tensor& a, const at::Tensor& b);

}  // namespace deepsim
