#include "winograd.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "capability.h"
#include "remembered.h"
#include "second_derivatives.h"
#include "winograd_kernel.h"

namespace deepsim {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const Kernels* kernels() {
  static const Kernels* chosen = capability() >= Capability::Avx512 ? kernels_avx512()
                                 : capability() == Capability::Avx2 ? kernels_avx2()
                                                                    : kernels_plain();
  return chosen;
}

// The matrix product of the BLAS that libtorch brings along (MKL in the x86 builds).
Gemm sgemm() {
  static const Gemm found = reinterpret_cast<Gemm>(dlsym(RTLD_DEFAULT, "sgemm_"));
  return found;
}

// Whether the transformed weights are kept: where they do not learn, and where making them anew
// would cost more than a tenth of the products. They take up to four times the weights' memory.
bool kept(const Correlation& c, const at::Tensor& weight) {
  return !weight.requires_grad() && c.images * c.tiles() < 600;
}

// Cost of one correlation in multiply-adds of the matrix products. Besides those, a transformed
// value costs about as much as 20, a transformed weight as 60 (measured with AVX-512).
double cost(const Correlation& c, bool kept = false) {
  const double in = c.in_channels / c.groups, out = c.out_channels / c.groups, pairs = in * out;
  const double tiles = c.images * c.tiles(), weights = kept ? 0 : 60 * pairs;
  return c.groups * c.points() * (tiles * (pairs + 20 * (in + out)) + weights);
}

double direct_cost(const Correlation& c) {
  return static_cast<double>(c.images) * c.out_height * c.out_width * c.kernel * c.kernel *
         (c.in_channels / c.groups) * c.out_channels;
}

int cheapest_tile(const Correlation& c) {
  double least = std::numeric_limits<double>::infinity();
  int best = 2;
  for (int tile : {4, 3, 2}) {
    Correlation candidate = c;
    candidate.tile = tile;
    if (!kernels()->has(c.kernel, tile) || cost(candidate) >= least) continue;
    least = cost(candidate);
    best = tile;
  }
  return best;
}

std::vector<Correlation> correlations(at::IntArrayRef x, at::IntArrayRef w, Form form,
                                      int64_t padding, int64_t groups) {
  Correlation c{};
  c.images = x[0];
  c.in_channels = x[1];
  c.height = x[2];
  c.width = x[3];
  c.groups = groups;
  const bool transposed = form != Form::Convolution;
  const int64_t k = w[2], area = k * k;
  c.out_channels = transposed ? w[1] : w[0];
  c.s_out = transposed ? area : w[1] * area;
  c.s_in = transposed ? w[1] * area : area;
  c.step = 1;
  std::vector<Correlation> out;
  if (form == Form::Double) {
    c.kernel = 2;
    c.step = 2;
    c.out_height = c.height;
    c.out_width = c.width;
    c.tile = cheapest_tile(c);
    c.map_height = 2 * c.height;
    c.map_width = 2 * c.width;
    // Output 2a sees x[a-1] by tap 3 and x[a] by tap 1; output 2a+1 sees x[a] by tap 2 and
    // x[a+1] by tap 0.
    c.s_i = -2 * k;
    c.s_j = -2;
    for (int64_t py : {0, 1})
      for (int64_t px : {0, 1}) {
        c.offset_y = py;
        c.offset_x = px;
        c.pad_y = 1 - py;
        c.pad_x = 1 - px;
        c.base = (3 - py) * k + (3 - px);
        out.push_back(c);
      }
    return out;
  }
  c.kernel = static_cast<int>(k);
  c.pad_y = c.pad_x = padding;
  c.out_height = c.height + 2 * padding - k + 1;
  c.out_width = c.width + 2 * padding - k + 1;
  c.map_height = c.out_height;
  c.map_width = c.out_width;
  c.s_i = transposed ? -k : k;
  c.s_j = transposed ? -1 : 1;
  c.base = transposed ? area - 1 : 0;
  c.tile = cheapest_tile(c);
  out.push_back(c);
  return out;
}

at::Tensor nhwc(const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast); }

at::Tensor transform(const std::vector<Correlation>& parts, const at::Tensor& any_weight) {
  const auto& c = parts.front();
  const auto weight = any_weight.contiguous();
  auto u = at::empty({static_cast<int64_t>(parts.size()), c.transformed()}, weight.options());
  const float* from = weight.const_data_ptr<float>();
  float* to = u.mutable_data_ptr<float>();
  at::parallel_for(0, c.in_channels / c.groups, 4, [&](int64_t a, int64_t b) {
    for (size_t i = 0; i < parts.size(); ++i)
      kernels()->weights(parts[i], from, to + i * c.transformed(), a, b);
  });
  return u;
}

// The weights of all parts, transformed.
at::Tensor transformed(const std::vector<Correlation>& parts, const at::Tensor& weight, Form form) {
  // The form and the tile say what is made of a weight.
  static Remembered<std::pair<Form, int>, at::Tensor> remembered;
  const auto& c = parts.front();
  const auto make = [&] { return transform(parts, weight.detach()); };
  if (!kept(c, weight)) return make();
  return *remembered.get(weight, {form, c.tile}, make);
}

// Memory of one thread that stays: fresh pages for every convolution would cost more than the
// transforms.
float* workspace(int64_t floats) {
  static thread_local std::unique_ptr<float[]> memory;
  static thread_local int64_t size = 0;
  if (size < floats) {
    memory.reset();
    memory.reset(new float[static_cast<size_t>(floats)]);
    size = floats;
  }
  return memory.get();
}

// Splits the images over the threads: rows of one image are never written by two.
template <class F>
void over_images(const Correlation& c, const F& body) {
  at::parallel_for(0, c.images, 1, [&](int64_t a, int64_t b) {
    body(a * c.tiles(), b * c.tiles(), workspace(kernels()->workspace(c)));
  });
}

struct Winograd : torch::autograd::Function<Winograd> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_any,
                            const at::Tensor& weight_any, const std::optional<at::Tensor>& bias_any,
                            int64_t form, int64_t padding, int64_t groups, double slope) {
    const auto x = nhwc(x_any);
    const auto& weight = weight_any;
    const auto bias = bias_any ? std::optional(bias_any->contiguous()) : std::nullopt;
    const auto parts =
        correlations(x.sizes(), weight.sizes(), static_cast<Form>(form), padding, groups);
    const auto& first = parts.front();
    auto y = at::empty({first.images, first.out_channels, first.map_height, first.map_width},
                       x.options(), at::MemoryFormat::ChannelsLast);
    const float* in = x.const_data_ptr<float>();
    const float* b = bias ? bias->const_data_ptr<float>() : nullptr;
    float* out = y.mutable_data_ptr<float>();
    const Activation act{static_cast<float>(slope)};
    const auto u = transformed(parts, weight, static_cast<Form>(form));
    const float* uu = u.const_data_ptr<float>();
    const int count = static_cast<int>(parts.size());
    over_images(first, [&](int64_t from, int64_t to, float* work) {
      kernels()->forward(parts.data(), count, in, uu, b, act, out, from, to, work, sgemm());
    });
    // The sign of the output is that of the value before the activation.
    ctx->save_for_backward({x, weight, slope == 1.0 ? at::Tensor() : y});
    ctx->saved_data["form"] = form;
    ctx->saved_data["biased"] = bias.has_value();
    ctx->saved_data["padding"] = padding;
    ctx->saved_data["groups"] = groups;
    ctx->saved_data["slope"] = slope;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivatives("convolution by Winograd's algorithm");
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &y = saved[2];
    const auto dy = nhwc(grads[0]);
    const auto form = static_cast<Form>(ctx->saved_data["form"].toInt());
    const auto parts = correlations(x.sizes(), weight.sizes(), form,
                                    ctx->saved_data["padding"].toInt(),
                                    ctx->saved_data["groups"].toInt());
    const Activation act{static_cast<float>(ctx->saved_data["slope"].toDouble())};
    const bool need_x = ctx->needs_input_grad(0), need_w = ctx->needs_input_grad(1),
               need_b = ctx->saved_data["biased"].toBool() && ctx->needs_input_grad(2);
    at::Tensor dx, dw, dbias;
    if (need_x) dx = at::zeros_like(x);
    if (need_w) dw = at::empty_like(weight, at::MemoryFormat::Contiguous);
    const auto& c = parts.front();
    const int count = static_cast<int>(parts.size());
    // Each thread adds up its own images; the sums are joined in the threads' order. No more threads
    // take part than there are images.
    const int64_t threads = std::clamp<int64_t>(c.images, 1, at::get_num_threads());
    const int64_t floats = count * c.transformed();
    const auto bias_sums = at::zeros({threads, c.out_channels}, x.options());
    const auto u = need_x ? transformed(parts, weight, form) : at::Tensor();
    const auto du = need_w ? at::empty({threads, floats}, x.options()) : at::Tensor();
    std::vector<char> wrote(static_cast<size_t>(threads), 0);
    const float* in = x.const_data_ptr<float>();
    const float* uu = need_x ? u.const_data_ptr<float>() : nullptr;
    const float* out = y.defined() ? y.const_data_ptr<float>() : nullptr;
    const float* grad = dy.const_data_ptr<float>();
    float* to_x = need_x ? dx.mutable_data_ptr<float>() : nullptr;
    float* to_u = need_w ? du.mutable_data_ptr<float>() : nullptr;
    float* to_b = need_b ? bias_sums.mutable_data_ptr<float>() : nullptr;
    over_images(c, [&](int64_t from, int64_t to, float* work) {
      const int64_t thread = at::get_thread_num();
      wrote[static_cast<size_t>(thread)] = 1;
      kernels()->backward(parts.data(), count, in, uu, out, grad, act, to_x,
                          to_u ? to_u + thread * floats : nullptr,
                          to_b ? to_b + thread * c.out_channels : nullptr, from, to, work, sgemm());
    });
    if (need_w) {
      // Inside another parallel region one thread does it all.
      for (int64_t thread = 0; thread < threads; ++thread)
        if (!wrote[static_cast<size_t>(thread)]) du.select(0, thread).zero_();
      const auto sum = threads == 1 ? du.select(0, 0) : du.sum(0);
      const float* from_u = sum.const_data_ptr<float>();
      float* to_w = dw.mutable_data_ptr<float>();
      at::parallel_for(0, c.in_channels / c.groups, 4, [&](int64_t a, int64_t b) {
        for (int i = 0; i < count; ++i)
          kernels()->weights_back(parts[i], from_u + i * c.transformed(), to_w, a, b);
      });
    }
    if (need_b) dbias = bias_sums.sum(0);
    return {dx, dw, dbias, {}, {}, {}, {}};
  }
};

}  // namespace

bool winograd_has(const at::Tensor& x, const at::Tensor& weight, Form form, int64_t groups) {
  if (sgemm() == nullptr || x.dim() != 4 || weight.dim() != 4) return false;
  for (const auto& t : {x, weight})
    if (!t.device().is_cpu() || t.scalar_type() != at::kFloat) return false;
  const int64_t r = weight.size(2), in = x.size(1);
  if (weight.size(3) != r || groups < 1 || in % groups != 0) return false;
  switch (form) {
    case Form::Convolution:
      return (r == 2 || r == 3 || r == 5) && weight.size(0) % groups == 0 && weight.size(1) * groups == in;
    case Form::Keep:
      return r == 3 && groups == 1 && weight.size(0) == in;
    case Form::Double:
      return r == 4 && groups == 1 && weight.size(0) == in;
  }
  return false;
}

bool winograd_pays(const at::Tensor& x, const at::Tensor& weight, Form form, int64_t padding,
                   int64_t groups, double direct) {
  if (!winograd_has(x, weight, form, groups) || at::autocast::is_autocast_enabled(at::kCPU))
    return false;
  const auto c = correlations(x.sizes(), weight.sizes(), form, padding, groups).front();
  // Narrow layers leave lanes empty; margins below a tenth were lost in the scatter.
  const int64_t in = c.in_channels / groups, out = c.out_channels / groups;
  return in >= 16 && out >= 16 && c.out_height > 0 && c.out_width > 0 &&
         cost(c, kept(c, weight)) * 1.1 < direct * direct_cost(c);
}

at::Tensor winograd(const at::Tensor& x, const at::Tensor& weight,
                    const std::optional<at::Tensor>& bias, Form form, int64_t padding,
                    int64_t groups, double slope) {
  TORCH_CHECK(winograd_has(x, weight, form, groups), "no Winograd code for these tensors");
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->scalar_type() == at::kFloat &&
                        bias->size(0) == weight.size(form == Form::Convolution ? 0 : 1)),
              "a bias is one fp32 value per output channel");
  const int64_t smallest = weight.size(2) - 2 * padding;
  TORCH_CHECK(
      form != Form::Convolution || (padding >= 0 && x.size(2) >= smallest && x.size(3) >= smallest),
      "the map is smaller than the kernel");
  return Winograd::apply(x, weight, bias, static_cast<int64_t>(form),
                         form == Form::Convolution ? padding : 1, groups, slope);
}

}  // namespace deepsim
