// Convolutions in bf16 by our own kernels, as an operation that autograd knows.
#pragma once
#include <ATen/ATen.h>

#include <optional>

namespace deepsim::bf16 {

enum class Code : int {
  None = 0,
  Amx = 1,    // the processor's matrix unit
  Plain = 2,  // the same arithmetic in plain C++: slow, for tests
  Avx512 = 3,  // AVX-512's bf16 instruction
};

// Which code runs: Amx, else Avx512, where the processor has it and DEEPSIM_CPU_CAPABILITY allows it,
// Plain where that says so, else None. `choose` overrides it for tests; Amx and Avx512 count as None
// where they may not run.
Code code();
void choose(Code);

// Whether a map is to be convolved by this code: on the CPU, inside a bf16 autocast region, and
// there is fast code for it.
bool wanted(const at::Tensor& x);

struct Options {
  bool transposed;  // weight [in,out,k,k], else [out,in/groups,k,k]
  int64_t stride, padding, groups;
  double slope;  // v > 0 ? v : slope * v behind the bias; 1: nothing
  bool fp32;     // of the result, else bf16
  // Offset and size of the window of the result that is computed; size 0: the whole.
  int64_t top, left, height, width;
};

// Convolution of x [N,C,H,W] in fp32 or bf16 (rounded to bf16) with fp32 weights (rounded to bf16
// once for each version of them), summed in fp32. Maps come out channels-last. Differentiable once
// with regard to x, weight and bias; gradients of maps are bf16, of weights fp32.
at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, const Options&);

}  // namespace deepsim::bf16
