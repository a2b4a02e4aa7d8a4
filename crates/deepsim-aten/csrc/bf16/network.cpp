#include "network.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "../second_derivatives.h"
#include "dispatch.h"
#include "linear.h"
#include "maps.h"

namespace deepsim::bf16 {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const Half* halves(const at::Tensor& t) { return static_cast<const Half*>(t.const_data_ptr()); }
Half* halves_mut(const at::Tensor& t) { return static_cast<Half*>(t.mutable_data_ptr()); }
at::Tensor nhwc(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

// ---- Pooling ----------------------------------------------------------------------------------

int64_t pooled(int64_t size, bool ceil) { return (size - 3 + (ceil ? 1 : 0)) / 2 + 1; }

struct MaxPool : torch::autograd::Function<MaxPool> {
  static Pool pool_of(at::IntArrayRef x, bool ceil) {
    return {x[1], x[2], x[3], pooled(x[2], ceil), pooled(x[3], ceil)};
  }

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_any, bool ceil) {
    const auto x = nhwc(x_any);
    const Pool p = pool_of(x.sizes(), ceil);
    const auto size = {x.size(0), p.channels, p.out_height, p.out_width};
    auto y = at::empty(size, x.options(), at::MemoryFormat::ChannelsLast);
    auto index = at::empty(size, x.options().dtype(at::kByte), at::MemoryFormat::ChannelsLast);
    const int64_t in = x.numel() / std::max<int64_t>(1, x.size(0));
    const int64_t out = p.channels * p.out_height * p.out_width;
    at::parallel_for(0, x.size(0), 1, [&](int64_t a, int64_t b) {
      for (int64_t i = a; i < b; ++i)
        DEEPSIM_CODE(maps)->max_pool(p, halves(x) + i * in, halves_mut(y) + i * out,
                                     index.mutable_data_ptr<uint8_t>() + i * out);
    });
    ctx->save_for_backward({index});
    ctx->saved_data["size"] = x.sizes().vec();
    ctx->saved_data["ceil"] = ceil;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivatives("bf16 max pooling");
    const auto index = ctx->get_saved_variables()[0];
    const auto size = ctx->saved_data["size"].toIntVector();
    const Pool p = pool_of(size, ctx->saved_data["ceil"].toBool());
    const auto dy = nhwc(grads[0]);
    auto dx = at::empty(size, dy.options(), at::MemoryFormat::ChannelsLast);
    const int64_t in = p.channels * p.height * p.width;
    const int64_t out = p.channels * p.out_height * p.out_width;
    at::parallel_for(0, size[0], 1, [&](int64_t a, int64_t b) {
      for (int64_t i = a; i < b; ++i)
        DEEPSIM_CODE(maps)->max_pool_back(p, halves(dy) + i * out,
                                          index.const_data_ptr<uint8_t>() + i * out,
                                          halves_mut(dx) + i * in);
    });
    return {dx, {}};
  }
};

// ---- Local response normalisation -------------------------------------------------------------

struct Lrn : torch::autograd::Function<Lrn> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_any, double alpha) {
    const auto x = nhwc(x_any);
    auto y = at::empty_like(x);
    const int64_t channels = x.size(1), pixels = x.numel() / std::max<int64_t>(1, channels);
    at::parallel_for(0, pixels, 256, [&](int64_t a, int64_t b) {
      DEEPSIM_CODE(maps)->lrn(halves(x) + a * channels, b - a, channels, static_cast<float>(alpha),
                              halves_mut(y) + a * channels);
    });
    ctx->save_for_backward({x});
    ctx->saved_data["alpha"] = alpha;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivatives("bf16 local response normalisation");
    const auto x = ctx->get_saved_variables()[0];
    const auto dy = nhwc(grads[0]);
    const auto alpha = static_cast<float>(ctx->saved_data["alpha"].toDouble());
    auto dx = at::empty_like(x);
    const int64_t channels = x.size(1), pixels = x.numel() / std::max<int64_t>(1, channels);
    at::parallel_for(0, pixels, 256, [&](int64_t a, int64_t b) {
      DEEPSIM_CODE(maps)->lrn_back(halves(x) + a * channels, halves(dy) + a * channels, b - a,
                                   channels, alpha, halves_mut(dx) + a * channels);
    });
    return {dx, {}};
  }
};

// ---- Fully connected --------------------------------------------------------------------------

const LinearKernels& linear_code() { return *DEEPSIM_CODE(linear); }

at::Tensor workspace(int64_t halves) { return at::empty({halves}, at::kBFloat16); }

struct FullyConnected : torch::autograd::Function<FullyConnected> {
  static Linear linear_of(const at::Tensor& x, const at::Tensor& weight) {
    return {x.size(0), weight.size(1), weight.size(0)};
  }

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_any, const at::Tensor& w,
                            const std::optional<at::Tensor>& bias_any, double slope) {
    const auto x = x_any.to(at::kBFloat16).contiguous(), weight = w.contiguous();
    const auto bias = bias_any ? bias_any->contiguous() : at::Tensor();
    const Linear l = linear_of(x, weight);
    auto y = at::empty({l.batch, l.outputs}, x.options());
    const auto columns = workspace(l.input_steps() * l.batch_tiles() * TILE * DEPTH);
    linear_code().columns(halves(x), l.batch, l.inputs, halves_mut(columns));
    std::shared_ptr<const Packed> packed;
    // Weights that do not learn are rounded once; those that do, as they are read.
    if (!w.requires_grad())
      packed = packed_once(w, Use::Rows, {}, [&] {
        Packed rows(static_cast<size_t>(l.output_tiles() * TILE * l.input_steps() * DEPTH));
        at::parallel_for(0, l.output_tiles(), 1, [&](int64_t a, int64_t b) {
          const int64_t wide = l.input_steps() * DEPTH;
          linear_code().round(weight.const_data_ptr<float>() + a * TILE * l.inputs,
                              std::min(b * TILE, l.outputs) - a * TILE, l.inputs,
                              rows.data() + a * TILE * wide);
        });
        return rows;
      });
    at::parallel_for(0, l.output_tiles(), 1, [&](int64_t a, int64_t b) {
      linear_code().forward(l, halves(columns), weight.const_data_ptr<float>(),
                            packed ? packed->data() : nullptr,
                            bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                            static_cast<float>(slope), halves_mut(y), a, b);
    });
    ctx->save_for_backward({x, w, slope == 1.0 ? at::Tensor() : y});
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["biased"] = bias_any.has_value();
    ctx->saved_data["fp32"] = x_any.scalar_type() == at::kFloat;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivatives("bf16 fully connected layer");
    const auto saved = ctx->get_saved_variables();
    const auto x = saved[0], weight = saved[1].contiguous(), y = saved[2];
    const auto dy = grads[0].contiguous();
    const Linear l = linear_of(x, weight);
    const int64_t wide = l.output_steps() * DEPTH;
    // dy through the rectifier.
    const auto rows = workspace(l.batch_tiles() * TILE * wide);
    linear_code().signed_rows(halves(dy), y.defined() ? halves(y) : nullptr,
                              static_cast<float>(ctx->saved_data["slope"].toDouble()), l.batch,
                              l.outputs, halves_mut(rows));
    const auto through = rows.view({l.batch_tiles() * TILE, wide}).narrow(0, 0, l.batch).narrow(1, 0, l.outputs);
    at::Tensor dx, dw, db;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty({l.batch, l.inputs}, x.options());
      at::parallel_for(0, l.input_tiles(), 1, [&](int64_t a, int64_t b) {
        linear_code().to_inputs(l, halves(rows), weight.const_data_ptr<float>(), halves_mut(dx), a, b);
      });
      if (ctx->saved_data["fp32"].toBool()) dx = dx.to(at::kFloat);
    }
    if (ctx->needs_input_grad(1)) {
      dw = at::empty(weight.sizes(), weight.options());
      const auto turned = workspace(l.output_tiles() * TILE * l.batch_steps() * DEPTH);
      const auto pairs = workspace(l.input_tiles() * TILE * l.batch_steps() * DEPTH);
      const auto gradient = through.contiguous();
      linear_code().turned(halves(gradient), l.batch, l.outputs, halves_mut(turned));
      linear_code().pairs(halves(x), l.batch, l.inputs, halves_mut(pairs));
      at::parallel_for(0, l.output_tiles(), 1, [&](int64_t a, int64_t b) {
        linear_code().to_weights(l, halves(turned), halves(pairs), dw.mutable_data_ptr<float>(), a, b);
      });
    }
    if (ctx->saved_data["biased"].toBool() && ctx->needs_input_grad(2)) db = through.sum(0, false, at::kFloat);
    return {dx, dw, db, {}};
  }
};

void check_map(const at::Tensor& x) {
  TORCH_CHECK(code() != Code::None, NO_CODE);
  TORCH_CHECK(x.device().is_cpu() && x.dim() == 4 && x.scalar_type() == at::kBFloat16,
              "a map is four-dimensional, bf16, on the CPU");
}

}  // namespace

at::Tensor max_pool(const at::Tensor& x, bool ceil) {
  check_map(x);
  TORCH_CHECK(x.size(2) >= 3 && x.size(3) >= 3, "the map is smaller than the window");
  return MaxPool::apply(x, ceil);
}

at::Tensor lrn(const at::Tensor& x, double alpha) {
  check_map(x);
  return Lrn::apply(x, alpha);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, double slope) {
  TORCH_CHECK(code() != Code::None, NO_CODE);
  TORCH_CHECK(x.device().is_cpu() && x.dim() == 2 && weight.device().is_cpu() && weight.dim() == 2 &&
                  weight.scalar_type() == at::kFloat && weight.size(1) == x.size(1) &&
                  x.numel() > 0 && weight.numel() > 0 &&
                  (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
              "vectors [N,in] in fp32 or bf16 and fp32 weights [out,in] on the CPU");
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->scalar_type() == at::kFloat &&
                        bias->size(0) == weight.size(0)),
              "a bias is one fp32 value per output");
  TORCH_CHECK(slope >= 0 && slope <= 1, "a rectifier's slope is between 0 and 1");
  return FullyConnected::apply(x, weight, bias, slope);
}

}  // namespace deepsim::bf16
