#include "function.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>

#include "../capability.h"
#include "../second_derivatives.h"
#include "dispatch.h"
#include "kernel.h"
#include "plan.h"

namespace deepsim::bf16 {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const Kernels* kernels() { return DEEPSIM_CODE(kernels); }

// Memory of a thread that its next call takes again.
template <int PURPOSE>
Half* scratch(int64_t halves) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<void, Free> memory;
  static thread_local int64_t size = 0;
  if (size < halves) {
    memory.reset();
    size = 0;
    memory.reset(std::aligned_alloc(64, static_cast<size_t>(round_up(halves * 2, 64))));
    TORCH_CHECK(memory != nullptr, "not enough memory for a convolution's workspace");
    size = halves;
  }
  return static_cast<Half*>(memory.get());
}

std::shared_ptr<const Plan> plan_of(const Geometry& geometry) {
  static std::mutex mutex;
  static std::map<Geometry, std::shared_ptr<const Plan>> plans;
  const std::lock_guard lock(mutex);
  auto& plan = plans[geometry];
  if (!plan) {
    // A network has some tens; images of ever new sizes must not fill the memory.
    if (plans.size() > 256) {
      plans.clear();
      return plans[geometry] = std::make_shared<Plan>(make_plan(geometry));
    }
    plan = std::make_shared<Plan>(make_plan(geometry));
  }
  return plan;
}

Packed pack_weights(const Correlation& c, const Geometry& g, const at::Tensor& weight) {
  const float* values = weight.const_data_ptr<float>();
  const int64_t of_group = weight.numel() / g.groups;
  Packed out(static_cast<size_t>(c.weight_halves() * g.groups));
  Half* to = out.data();
  for (int64_t group = 0; group < g.groups; ++group)
    for (const auto& part : c.parts) {
      const auto blocks = static_cast<int64_t>(part.weights.size()) / (TILE * DEPTH);
      at::parallel_for(0, blocks, 16, [&](int64_t a, int64_t b) {
        kernels()->weights(part.weights.data(), values + group * of_group, to, a * TILE * DEPTH,
                           b * TILE * DEPTH);
      });
      to += part.weights.size();
    }
  return out;
}

std::shared_ptr<const Packed> packed_weights(const Plan& plan, bool up, const at::Tensor& weight) {
  return packed_once(weight, up ? Use::Up : Use::Down, plan.geometry, [&] {
    return pack_weights(up ? plan.up : plan.down, plan.geometry, weight.contiguous());
  });
}

at::Tensor nhwc(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

Source source_of(const at::Tensor& map, const at::Tensor& sign, double slope, int64_t top,
                 int64_t left) {
  Source s{};
  s.data = map.const_data_ptr();
  s.fp32 = map.scalar_type() == at::kFloat;
  s.sign = sign.defined() ? static_cast<const Half*>(sign.const_data_ptr()) : nullptr;
  s.slope = static_cast<float>(slope);
  s.top = top;
  s.left = left;
  s.channels = map.size(1);
  s.height = map.size(2);
  s.width = map.size(3);
  return s;
}

Target target_of(const at::Tensor& map, const at::Tensor& bias, double slope, int64_t top, int64_t left) {
  Target t{};
  t.data = map.mutable_data_ptr();
  t.fp32 = map.scalar_type() == at::kFloat;
  t.bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  t.slope = static_cast<float>(slope);
  t.top = top;
  t.left = left;
  t.channels = map.size(1);
  t.height = map.size(2);
  t.width = map.size(3);
  return t;
}

// Images packed at once: few where the weights stay in the second-level cache and the maps should,
// many where each pass over the weights costs more than one over the maps.
int64_t images_at_once(int64_t halves_of_image, int64_t weights, int64_t images) {
  const int64_t budget = weights > (int64_t{512} << 10) ? int64_t{2} << 20 : int64_t{192} << 10;
  return std::clamp<int64_t>(budget / std::max<int64_t>(1, halves_of_image), 1, images);
}

void correlate(const Correlation& c, const Packed& weights, const Source& from, const Target& to,
               int64_t images) {
  at::parallel_for(0, images, 1, [&](int64_t a, int64_t b) {
    const int64_t each =
        images_at_once(c.in.halves(1), static_cast<int64_t>(weights.size()) / c.in.groups, b - a);
    Half* packed = scratch<0>(c.in.halves(each));
    for (int64_t i = a; i < b; i += each) {
      const int64_t n = std::min(each, b - i);
      kernels()->pack(c.in, from, i, n, packed);
      kernels()->correlate(c, packed, i, n, weights.data(), to);
    }
  });
}

// What a backward pass computes; undefined or false: nothing.
struct Gradients {
  at::Tensor map;  // written
  bool weight, bias;
};

// Gradients of the weights and of the bias, undefined where not wanted, and that of the inner map.
// `outer` is the gradient of the output with its rectifier, `inner` the input. Everything is done
// for some images before the next, so that the gradient is fetched from memory once.
std::pair<at::Tensor, at::Tensor> backward_maps(const Plan& plan, const Source& outer,
                                                const Source& inner, bool transposed,
                                                int64_t images, const at::Tensor& weight,
                                                Gradients wanted) {
  const auto& w = plan.weight_gradient;
  const auto& g = plan.geometry;
  const auto& back = transposed ? plan.down : plan.up;
  // No more threads take part than there are images.
  const int64_t threads = std::clamp<int64_t>(images, 1, at::get_num_threads());
  const int64_t sums_of_one = g.groups * w.sums();
  const int64_t channels = transposed ? g.big : g.small;
  const bool to_map = wanted.map.defined();
  const auto packed = to_map ? packed_weights(plan, !transposed, weight) : nullptr;
  const auto target = to_map ? target_of(wanted.map, {}, 1, 0, 0) : Target{};
  // Each thread adds up its own images; the sums are joined in the threads' order.
  const auto sums = at::zeros({wanted.weight ? threads : 0, sums_of_one}, weight.options());
  const auto bias_sums = at::zeros({threads, channels}, weight.options());
  float* to = wanted.weight ? sums.mutable_data_ptr<float>() : nullptr;
  float* to_bias = bias_sums.mutable_data_ptr<float>();
  at::parallel_for(0, images, 1, [&](int64_t a, int64_t b) {
    // Operands that stay in the second-level cache, but sums that are worth their loading.
    const int64_t of_image = kernels()->work(w, 1);
    const int64_t least = 192 / w.small.positions() + 1;
    const int64_t each =
        std::min(b - a, std::max(least, (int64_t{640} << 10) / std::max<int64_t>(1, of_image)));
    Half* big = scratch<0>(w.big.halves(each));
    Half* small = scratch<1>(std::max(w.small.halves(each), back.in.halves(each)));
    Half* work = scratch<2>(wanted.weight ? kernels()->work(w, each) : 0);
    const int64_t thread = at::get_thread_num();
    for (int64_t i = a; i < b; i += each) {
      const int64_t n = std::min(each, b - i);
      if (to_map) {
        // The big map lies alike for both purposes, the small one does not.
        Half* at = transposed ? big : small;
        kernels()->pack(back.in, outer, i, n, at);
        kernels()->correlate(back, at, i, n, packed->data(), target);
      }
      if (wanted.weight || wanted.bias) {
        if (!(transposed && to_map) && (wanted.weight || transposed))
          kernels()->pack(w.big, transposed ? outer : inner, i, n, big);
        if (wanted.weight || !transposed)
          kernels()->pack(w.small, transposed ? inner : outer, i, n, small);
      }
      if (wanted.weight) kernels()->gradient(w, big, small, n, work, to + thread * sums_of_one);
      if (wanted.bias) {
        const auto& layout = transposed ? w.big : w.small;
        const Half* rows = transposed ? big : small;
        std::vector<float> of_plane(static_cast<size_t>(layout.channels));
        for (int64_t p = 0; p < layout.groups * layout.planes(); ++p) {
          std::fill(of_plane.begin(), of_plane.end(), 0.0f);
          kernels()->add_rows(rows, layout.span(n), layout.channels, of_plane.data());
          rows += layout.span(n) * layout.channels;
          // A merged plane holds all channels several times; a group's plane some of them once.
          const int64_t own = layout.merged ? channels : layout.channels;
          float* at = to_bias + thread * channels + p / layout.planes() * own;
          for (size_t c = 0; c < of_plane.size(); ++c)
            at[static_cast<int64_t>(c) % own] += of_plane[c];
        }
      }
    }
  });
  const auto bias = wanted.bias ? bias_sums.sum(0) : at::Tensor();
  if (!wanted.weight) return {at::Tensor(), bias};
  auto dw = at::empty(weight.sizes(), weight.options());
  float* values = dw.mutable_data_ptr<float>();
  const auto of_group = static_cast<int64_t>(w.from.size());
  for (int64_t group = 0; group < g.groups; ++group)
    at::parallel_for(0, of_group, 1 << 14, [&](int64_t a, int64_t b) {
      const float* from = to + group * w.sums();
      float* put = values + group * of_group;
      for (int64_t i = a; i < b; ++i) put[i] = from[w.from[static_cast<size_t>(i)]];
      for (int64_t t = 1; t < threads; ++t)
        for (int64_t i = a; i < b; ++i)
          put[i] += from[t * sums_of_one + w.from[static_cast<size_t>(i)]];
    });
  return {dw, bias};
}

Geometry geometry_of(const at::Tensor& x, const at::Tensor& weight, const Options& o) {
  Geometry g{};
  g.kernel = weight.size(2);
  g.stride = o.stride;
  g.pad = o.padding;
  g.groups = o.groups;
  const int64_t reach = g.kernel - 2 * g.pad;
  if (o.transposed) {
    g.small = x.size(1);
    g.big = weight.size(1) * o.groups;
    g.small_height = x.size(2);
    g.small_width = x.size(3);
    g.big_height = (g.small_height - 1) * g.stride + reach;
    g.big_width = (g.small_width - 1) * g.stride + reach;
  } else {
    g.big = x.size(1);
    g.small = weight.size(0);
    g.big_height = x.size(2);
    g.big_width = x.size(3);
    TORCH_CHECK(g.big_height >= reach && g.big_width >= reach, "the map is smaller than the kernel");
    g.small_height = (g.big_height - reach) / g.stride + 1;
    g.small_width = (g.big_width - reach) / g.stride + 1;
  }
  return g;
}

struct Convolution : torch::autograd::Function<Convolution> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_any, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias_any, const Options& o) {
    const auto x = nhwc(x_any);
    const auto bias = bias_any ? bias_any->contiguous() : at::Tensor();
    const auto geometry = geometry_of(x, weight, o);
    const auto plan = plan_of(geometry);
    const int64_t channels = o.transposed ? geometry.big : geometry.small;
    const int64_t height = o.height ? o.height : o.transposed ? geometry.big_height : geometry.small_height;
    const int64_t width = o.width ? o.width : o.transposed ? geometry.big_width : geometry.small_width;
    auto y = at::empty({x.size(0), channels, height, width},
                       x.options().dtype(o.fp32 ? at::kFloat : at::kBFloat16),
                       at::MemoryFormat::ChannelsLast);
    const auto packed = packed_weights(*plan, o.transposed, weight);
    correlate(o.transposed ? plan->up : plan->down, *packed, source_of(x, {}, 1, 0, 0),
              target_of(y, bias, o.slope, o.top, o.left), x.size(0));
    // The sign of the output is that of the value before the rectifier.
    ctx->save_for_backward({x, weight, o.slope == 1.0 ? at::Tensor() : y});
    auto& d = ctx->saved_data;
    d["transposed"] = o.transposed;
    d["numbers"] = std::vector<int64_t>{o.stride, o.padding, o.groups, o.top, o.left};
    d["slope"] = o.slope;
    d["biased"] = bias_any.has_value();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivatives("bf16 convolution");
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    auto sign = saved[2];
    auto& d = ctx->saved_data;
    const auto numbers = d["numbers"].toIntVector();
    Options o{};
    o.transposed = d["transposed"].toBool();
    o.stride = numbers[0];
    o.padding = numbers[1];
    o.groups = numbers[2];
    const double slope = d["slope"].toDouble();
    const auto plan = plan_of(geometry_of(x, weight, o));
    const auto dy = nhwc(grads[0]);
    // Rounding to bf16 keeps a value's sign.
    if (sign.defined() && sign.scalar_type() != at::kBFloat16) sign = sign.to(at::kBFloat16);
    const auto outer = source_of(dy, sign, slope, numbers[3], numbers[4]);
    const Gradients wanted{ctx->needs_input_grad(0) ? at::empty_like(x) : at::Tensor(),
                           ctx->needs_input_grad(1),
                           d["biased"].toBool() && ctx->needs_input_grad(2)};
    const auto [dw, db] = backward_maps(*plan, outer, source_of(x, {}, 1, 0, 0), o.transposed,
                                        x.size(0), weight, wanted);
    return {wanted.map, dw, db, {}};
  }
};

}  // namespace

bool wanted(const at::Tensor& x) {
  capability();  // throws where the choice is impossible
  return x.device().is_cpu() && at::autocast::is_autocast_enabled(at::kCPU) &&
         at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16 &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         code() != Code::None;
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, const Options& o) {
  TORCH_CHECK(kernels() != nullptr, NO_CODE);
  TORCH_CHECK(x.device().is_cpu() && x.dim() == 4 &&
                  (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
              "a map is four-dimensional, fp32 or bf16, on the CPU");
  TORCH_CHECK(weight.device().is_cpu() && weight.scalar_type() == at::kFloat && weight.dim() == 4 &&
                  weight.size(2) == weight.size(3) && weight.numel() > 0,
              "weights are fp32 with square kernels");
  TORCH_CHECK(o.stride >= 1 && o.padding >= 0 && o.groups >= 1 && (!o.transposed || o.groups == 1),
              "stride and groups are at least 1, and a transposed convolution has one group");
  TORCH_CHECK(o.transposed ? weight.size(0) == x.size(1)
                           : weight.size(1) * o.groups == x.size(1) && weight.size(0) % o.groups == 0,
              "weights of other channels than the map's");
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->scalar_type() == at::kFloat &&
                        bias->size(0) == weight.size(o.transposed ? 1 : 0)),
              "a bias is one fp32 value per output channel");
  const auto g = geometry_of(x, weight, o);
  TORCH_CHECK(g.big_height > 0 && g.big_width > 0 && x.size(2) > 0 && x.size(3) > 0, "an empty map");
  TORCH_CHECK(g.big_height * g.big_width < (int64_t{1} << 30) && weight.numel() < (int64_t{1} << 30),
              "a map or kernel too large");
  const int64_t height = o.transposed ? g.big_height : g.small_height,
                width = o.transposed ? g.big_width : g.small_width;
  TORCH_CHECK(o.top >= 0 && o.left >= 0 && o.height >= 0 && o.width >= 0 &&
                  o.top + o.height <= height && o.left + o.width <= width &&
                  (o.height == 0) == (o.width == 0) && (o.height > 0 || (o.top == 0 && o.left == 0)),
              "the window lies outside the result");
  TORCH_CHECK(o.slope >= 0 && o.slope <= 1, "a rectifier's slope is between 0 and 1");
  return Convolution::apply(x, weight, bias, o);
}

}  // namespace deepsim::bf16
