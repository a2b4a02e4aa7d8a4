#include "distance.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "second_derivatives.h"

namespace deepsim {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t PIECE = 4096, LANES = 16;

template <class A, class B>
double sum_of(const A* a, const B* b, int64_t n) {
  double total = 0;
  for (int64_t from = 0; from < n; from += PIECE) {
    const int64_t to = std::min(n, from + PIECE), whole = from + (to - from) / LANES * LANES;
    float lanes[LANES] = {};
    for (int64_t i = from; i < whole; i += LANES)
      for (int64_t l = 0; l < LANES; ++l) {
        const float d = static_cast<float>(a[i + l]) - static_cast<float>(b[i + l]);
        lanes[l] += d * d;
      }
    for (int64_t i = whole; i < to; ++i) {
      const float d = static_cast<float>(a[i]) - static_cast<float>(b[i]);
      lanes[i - whole] += d * d;
    }
    double sum = 0;
    for (const float l : lanes) sum += l;
    total += sum;
  }
  return total;
}

template <class A, class B>
void scaled_difference(const A* a, const B* b, float scale, A* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    to[i] = static_cast<A>(scale * (static_cast<float>(a[i]) - static_cast<float>(b[i])));
}

template <class F>
void with_types(const at::Tensor& a, const at::Tensor& b, const F& body) {
  const auto second = [&](auto* x) {
    if (b.scalar_type() == at::kFloat)
      body(x, b.const_data_ptr<float>());
    else
      body(x, b.const_data_ptr<at::BFloat16>());
  };
  if (a.scalar_type() == at::kFloat)
    second(a.const_data_ptr<float>());
  else
    second(a.const_data_ptr<at::BFloat16>());
}

// Both in one order of memory: `like`'s.
at::Tensor ordered(const at::Tensor& t, const at::Tensor& like) {
  if (t.strides() == like.strides()) return t;
  auto out = at::empty_strided(like.sizes(), like.strides(), t.options());
  out.copy_(t);
  return out;
}

at::Tensor gradient(const at::Tensor& a, const at::Tensor& b, float scale) {
  auto to = at::empty_like(a);
  with_types(a, b, [&](auto* x, auto* y) {
    using A = std::remove_const_t<std::remove_pointer_t<decltype(x)>>;
    A* out = to.mutable_data_ptr<A>();
    at::parallel_for(0, a.numel(), 1 << 15, [&](int64_t from, int64_t end) {
      scaled_difference(x + from, y + from, scale, out + from, end - from);
    });
  });
  return to;
}

struct SquaredDistance : torch::autograd::Function<SquaredDistance> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& a_any, const at::Tensor& b_any) {
    const auto a = a_any.is_non_overlapping_and_dense() ? a_any : a_any.contiguous();
    const auto b = ordered(b_any, a);
    const int64_t pieces = (a.numel() + PIECE - 1) / PIECE;
    std::vector<double> sums(static_cast<size_t>(pieces));
    with_types(a, b, [&](auto* x, auto* y) {
      at::parallel_for(0, pieces, 8, [&](int64_t from, int64_t end) {
        for (int64_t i = from; i < end; ++i)
          sums[static_cast<size_t>(i)] = sum_of(x + i * PIECE, y + i * PIECE,
                                                std::min(PIECE, a.numel() - i * PIECE));
      });
    });
    // In the pieces' order: the number of threads does not matter.
    double total = 0;
    for (const double s : sums) total += s;
    ctx->save_for_backward({a, b});
    return at::scalar_tensor(total, a.options().dtype(at::kFloat));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivatives("squared distance");
    const auto saved = ctx->get_saved_variables();
    const float scale = 2 * grads[0].item<float>();
    at::Tensor da, db;
    if (ctx->needs_input_grad(0)) da = gradient(saved[0], saved[1], scale);
    if (ctx->needs_input_grad(1)) db = gradient(saved[1], saved[0], scale);
    return {da, db};
  }
};

}  // namespace

at::Tensor squared_distance(const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(a.sizes() == b.sizes(), "tensors of different shapes");
  for (const auto& t : {a, b})
    TORCH_CHECK(t.device().is_cpu() &&
                    (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16),
                "tensors in fp32 or bf16 on the CPU");
  return SquaredDistance::apply(a, b);
}

}  // namespace deepsim
