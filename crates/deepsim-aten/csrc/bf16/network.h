// The layers between convolutions in bf16, as operations that autograd knows. Maps are bf16 and
// channels-last, on the CPU; each is differentiable once.
#pragma once
#include <ATen/ATen.h>

#include <optional>

namespace deepsim::bf16 {

// Maximum over windows of 3 x 3 at a stride of 2. `ceil`: a last window that is cut off counts.
at::Tensor max_pool(const at::Tensor& x, bool ceil);

// x (1 + alpha/5 sum of x^2 over five channels)^-0.75, computed in fp32.
at::Tensor lrn(const at::Tensor& x, double alpha);

// x [N,in] times weight [out,in] transposed, plus bias, then v > 0 ? v : slope * v. Operands are
// rounded to bf16 (fp32 weights as they are read), sums are fp32; gradients of weight and bias fp32.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, double slope);

}  // namespace deepsim::bf16
