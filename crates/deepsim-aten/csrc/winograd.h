// Convolutions by Winograd's algorithm as an operation that autograd knows.
#pragma once
#include <ATen/ATen.h>

#include <optional>

namespace deepsim {

enum class Form : int {
  Convolution = 0,  // weight [out,in/groups,r,r], stride 1, r = 2, 3 or 5
  Keep = 1,         // transposed convolution 3x3, stride 1, padding 1; weight [in,out,3,3]
  Double = 2,       // transposed convolution 4x4, stride 2, padding 1; weight [in,out,4,4]
};

// Whether there is code for these tensors, and a matrix product in this process.
bool winograd_has(const at::Tensor& x, const at::Tensor& weight, Form form, int64_t groups);

// Whether it is expected to be faster here than libtorch's convolution: fp32 outside autocast, and
// enough work per transformed value. `direct`: how much longer the convolution takes whose place it
// is to take, where that is another one of the same shapes' direct sums.
bool winograd_pays(const at::Tensor& x, const at::Tensor& weight, Form form, int64_t padding,
                   int64_t groups, double direct);

// v = convolution(x, weight) + bias, then v > 0 ? v : slope * v (slope 1: nothing). Maps come
// out in channels-last order. Differentiable once with regard to x, weight and bias.
at::Tensor winograd(const at::Tensor& x, const at::Tensor& weight,
                    const std::optional<at::Tensor>& bias, Form form, int64_t padding,
                    int64_t groups, double slope);

}  // namespace deepsim
