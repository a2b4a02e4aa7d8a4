#include "ssim.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <memory>

#include "capability.h"
#include "second_derivatives.h"
#include "ssim_kernel.h"

namespace deepsim {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const SsimKernels* kernels() {
  static const SsimKernels* chosen = capability() >= Capability::Avx512 ? ssim_kernels_avx512()
                                     : capability() == Capability::Avx2 ? ssim_kernels_avx2()
                                                                        : ssim_kernels_plain();
  return chosen;
}

struct Taps {
  float values[SSIM_TAPS];
  Taps() {
    double sum = 0, raw[SSIM_TAPS];
    for (int64_t k = 0; k < SSIM_TAPS; ++k) {
      const double off = static_cast<double>(k) - SSIM_TAPS / 2;
      sum += raw[k] = std::exp(-off * off / (2 * 1.5 * 1.5));
    }
    for (int64_t k = 0; k < SSIM_TAPS; ++k) values[k] = static_cast<float>(raw[k] / sum);
  }
};

const float* gaussian() {
  static const Taps taps;
  return taps.values;
}

// Calls body(plane, planes, workspace) for each channel of each image.
template <class Body>
void each_plane(const at::Tensor& x, const at::Tensor& y, double c1, double c2, const Body& body) {
  const int64_t height = x.size(2), width = x.size(3), area = height * width;
  const float *px = x.const_data_ptr<float>(), *py = y.const_data_ptr<float>();
  at::parallel_for(0, x.size(0) * x.size(1), 1, [&](int64_t from, int64_t to) {
    const auto workspace =
        std::make_unique<float[]>(static_cast<size_t>(kernels()->workspace(height, width)));
    for (int64_t i = from; i < to; ++i)
      body(i,
           SsimPlanes{px + i * area, py + i * area, height, width, static_cast<float>(c1),
                      static_cast<float>(c2), gaussian()},
           workspace.get());
  });
}

struct Ssim : torch::autograd::Function<Ssim> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_any, const at::Tensor& y_any,
                            double c1, double c2) {
    const auto x = x_any.contiguous(), y = y_any.contiguous();
    auto out = at::empty({2, x.size(0), x.size(1)}, x.options().requires_grad(false));
    float* to = out.mutable_data_ptr<float>();
    const int64_t planes = x.size(0) * x.size(1);
    each_plane(x, y, c1, c2, [&](int64_t i, const SsimPlanes& p, float* workspace) {
      const auto means = kernels()->forward(p, workspace);
      to[i] = static_cast<float>(means.ssim);
      to[planes + i] = static_cast<float>(means.cs);
    });
    ctx->save_for_backward({x, y});
    ctx->saved_data["c1"] = c1;
    ctx->saved_data["c2"] = c2;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivatives("structural similarity");
    const auto saved = ctx->get_saved_variables();
    const double c1 = ctx->saved_data["c1"].toDouble(), c2 = ctx->saved_data["c2"].toDouble();
    const auto by = grads[0].to(at::kFloat).contiguous();
    const float* b = by.const_data_ptr<float>();
    const int64_t planes = by.numel() / 2;
    // Both images play the same part: the gradient of one is that of the other, exchanged.
    const auto gradient = [&](const at::Tensor& of, const at::Tensor& other) {
      auto out = at::empty_like(of);
      float* to = out.mutable_data_ptr<float>();
      each_plane(of, other, c1, c2, [&](int64_t i, const SsimPlanes& p, float* workspace) {
        kernels()->backward(p, b[i], b[planes + i], to + i * p.height * p.width, workspace);
      });
      return out;
    };
    at::Tensor dx, dy;
    if (ctx->needs_input_grad(0)) dx = gradient(saved[0], saved[1]);
    if (ctx->needs_input_grad(1)) dy = gradient(saved[1], saved[0]);
    return {dx, dy, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor ssim(const at::Tensor& x, const at::Tensor& y, double c1, double c2) {
  capability();  // throws here, not in the middle of the work
  TORCH_CHECK(x.sizes() == y.sizes() && x.dim() == 4, "two tensors [N,C,H,W] of one shape");
  TORCH_CHECK(x.size(2) >= SSIM_TAPS && x.size(3) >= SSIM_TAPS, "images below 11x11");
  for (const auto& t : {x, y})
    TORCH_CHECK(t.device().is_cpu() && t.scalar_type() == at::kFloat, "fp32 tensors on the CPU");
  return Ssim::apply(x, y, c1, c2);
}

}  // namespace deepsim
