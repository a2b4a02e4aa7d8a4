// C ABI over the parts of libtorch that tch does not bind. Every function catches all C++
// exceptions: nothing may unwind into Rust. An error leaves its text in `err` and returns 1.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/version.h>

#include "bf16/dispatch.h"
#include "bf16/function.h"
#include "bf16/network.h"
#include "distance.h"
#include "guarded.h"
#include "ssim.h"
#include "winograd.h"

#include <malloc.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

using deepsim::guarded;

std::vector<at::Tensor> list(void* const* tensors, size_t n) {
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (size_t i = 0; i < n; ++i) out.push_back(*static_cast<at::Tensor*>(tensors[i]));
  return out;
}

}  // namespace

extern "C" {

const char* deepsim_torch_version() { return TORCH_VERSION; }

// One step of Adam with L2 decay in the gradient, or with `decoupled` of AdamW with decay apart from
// it, in place over all tensors. The caller has already advanced the step tensors by one: libtorch
// divides by 1 - beta^step.
int deepsim_fused_adam(void* const* params, void* const* grads, void* const* exp_avgs,
                       void* const* exp_avg_sqs, void* const* steps, size_t n, double lr,
                       double beta1, double beta2, double weight_decay, double eps, int decoupled,
                       char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    at::NoGradGuard no_grad;
    auto p = list(params, n), g = list(grads, n), m = list(exp_avgs, n), v = list(exp_avg_sqs, n),
         s = list(steps, n);
    if (decoupled)
      at::_fused_adamw_(p, g, m, v, /*max_exp_avg_sqs=*/{}, s, lr, beta1, beta2, weight_decay, eps,
                        /*amsgrad=*/false, /*maximize=*/false);
    else
      at::_fused_adam_(p, g, m, v, /*max_exp_avg_sqs=*/{}, s, lr, beta1, beta2, weight_decay, eps,
                       /*amsgrad=*/false, /*maximize=*/false);
    // These kernels alone do not count as a change; what is derived from weights relies on it.
    for (const auto& changed : {p, m, v})
      for (const auto& t : changed) t.unsafeGetTensorImpl()->bump_version();
  });
}

// Autocast state of this thread for a device type (0 = CPU, 1 = CUDA).
int deepsim_autocast_get(int cuda, int* enabled, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    *enabled = at::autocast::is_autocast_enabled(cuda ? at::kCUDA : at::kCPU);
  });
}

int deepsim_autocast_set(int cuda, int enabled, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    if (enabled) at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, enabled != 0);
    // Casts of weights are cached within one region only: a cached bf16 copy must not outlive
    // the optimiser step that changes its fp32 original.
    at::autocast::clear_cache();
  });
}

// Whether autocast keeps the casts that it makes in this thread.
void deepsim_keep_casts(int on) { at::autocast::set_autocast_cache_enabled(on != 0); }

// leaky_relu_ with a slope of the caller's (tch binds only the default slope), in place and
// recorded by autograd.
int deepsim_leaky_relu_(void* x, double slope, char* err, size_t err_len) {
  return guarded(err, err_len, [&] { at::leaky_relu_(*static_cast<at::Tensor*>(x), slope); });
}

// Convolution by Winograd's algorithm with a leaky ReLU behind it; `bias` may be null, `out` gets a
// new tensor that the caller owns.
int deepsim_winograd(void* x, void* weight, void* bias, int form, int64_t padding, int64_t groups,
                     double slope, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    auto tensor = [](void* t) -> const at::Tensor& { return *static_cast<at::Tensor*>(t); };
    std::optional<at::Tensor> b;
    if (bias) b = tensor(bias);
    *out = new at::Tensor(deepsim::winograd(tensor(x), tensor(weight), b,
                                            static_cast<deepsim::Form>(form), padding, groups, slope));
  });
}

int deepsim_winograd_pays(void* x, void* weight, int form, int64_t padding, int64_t groups,
                          double direct, int* pays, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    *pays = deepsim::winograd_pays(*static_cast<at::Tensor*>(x), *static_cast<at::Tensor*>(weight),
                                   static_cast<deepsim::Form>(form), padding, groups, direct);
  });
}

// Convolution in bf16 by our own kernels; `numbers` are transposed, stride, padding, groups, fp32,
// top, left, height, width.
int deepsim_bf16_convolution(void* x, void* weight, void* bias, const int64_t* numbers,
                             double slope, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    auto tensor = [](void* t) -> const at::Tensor& { return *static_cast<at::Tensor*>(t); };
    std::optional<at::Tensor> b;
    if (bias) b = tensor(bias);
    const deepsim::bf16::Options options{numbers[0] != 0, numbers[1], numbers[2], numbers[3], slope,
                                         numbers[4] != 0, numbers[5], numbers[6], numbers[7],
                                         numbers[8]};
    *out = new at::Tensor(deepsim::bf16::convolution(tensor(x), tensor(weight), b, options));
  });
}

int deepsim_bf16_max_pool(void* x, int ceil, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    *out = new at::Tensor(deepsim::bf16::max_pool(*static_cast<at::Tensor*>(x), ceil != 0));
  });
}

int deepsim_bf16_lrn(void* x, double alpha, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    *out = new at::Tensor(deepsim::bf16::lrn(*static_cast<at::Tensor*>(x), alpha));
  });
}

int deepsim_bf16_linear(void* x, void* weight, void* bias, double slope, void** out, char* err,
                        size_t err_len) {
  return guarded(err, err_len, [&] {
    std::optional<at::Tensor> b;
    if (bias) b = *static_cast<at::Tensor*>(bias);
    *out = new at::Tensor(deepsim::bf16::linear(*static_cast<at::Tensor*>(x),
                                                *static_cast<at::Tensor*>(weight), b, slope));
  });
}

int deepsim_squared_distance(void* a, void* b, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    *out = new at::Tensor(
        deepsim::squared_distance(*static_cast<at::Tensor*>(a), *static_cast<at::Tensor*>(b)));
  });
}

int deepsim_ssim(void* x, void* y, double c1, double c2, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    *out = new at::Tensor(deepsim::ssim(*static_cast<at::Tensor*>(x), *static_cast<at::Tensor*>(y),
                                        c1, c2));
  });
}

// The three below work on plain memory and cannot throw; they return 1 where there is no code.
int deepsim_rows_code(const float* rows, int64_t n, int64_t dim, const double* centre, uint16_t* to,
                      deepsim::bf16::RowMeasure* measures) {
  const auto* kernels = deepsim::bf16::row_kernels();
  if (kernels) kernels->code(rows, n, dim, centre, to, measures);
  return kernels ? 0 : 1;
}

int deepsim_rows_columns(const uint16_t* rows, int64_t blocks, int64_t steps, uint16_t* to) {
  const auto* kernels = deepsim::bf16::row_kernels();
  if (kernels) kernels->columns(rows, blocks, steps, to);
  return kernels ? 0 : 1;
}

int deepsim_rows_products(const uint16_t* rows, int64_t blocks, int64_t steps,
                          const uint16_t* columns, int64_t column_blocks, float* out) {
  const auto* kernels = deepsim::bf16::row_kernels();
  if (kernels) kernels->products(rows, blocks, steps, columns, column_blocks, out);
  return kernels ? 0 : 1;
}

int deepsim_bf16_wanted(void* x, int* wanted, char* err, size_t err_len) {
  return guarded(err, err_len,
                 [&] { *wanted = deepsim::bf16::wanted(*static_cast<at::Tensor*>(x)); });
}

int deepsim_bf16_code() { return static_cast<int>(deepsim::bf16::code()); }
int deepsim_bf16_fast() {
  using deepsim::bf16::Code;
  const auto code = deepsim::bf16::code();
  return code == Code::Amx || (code == Code::Avx512 && deepsim::bf16::avx512_bf16_fast());
}
void deepsim_bf16_choose(int code) {
  deepsim::bf16::choose(static_cast<deepsim::bf16::Code>(code));
}

// Keeps freed memory in the process: a training step frees and asks for the same gigabytes again
// and again, and fresh pages cost the kernel a fault and a clearing each. The heap is grown once,
// in address space alone, so that the system can be asked for large pages in all of it. Returns 0
// where the C library has no such setting.
int deepsim_keep_memory() {
#if defined(__GLIBC__)
  if (!(mallopt(M_MMAP_MAX, 0) && mallopt(M_TRIM_THRESHOLD, -1) &&
        mallopt(M_TOP_PAD, 64 << 20)))
    return 0;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto begin = reinterpret_cast<uintptr_t>(sbrk(0));
  void* all = std::malloc(static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) / 2 *
                          static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  if (all) {
    constexpr uintptr_t LARGE = uintptr_t{2} << 20;
    const uintptr_t from = (begin + LARGE - 1) / LARGE * LARGE;
    const auto end = reinterpret_cast<uintptr_t>(sbrk(0));
    if (end > from) madvise(reinterpret_cast<void*>(from), end - from, MADV_HUGEPAGE);
    std::free(all);
  }
#endif
  return 1;
#else
  return 0;
#endif
}

// TF32 in cuBLAS and cuDNN (which would take it by default) for this process.
int deepsim_set_tf32(int on, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    at::globalContext().setAllowTF32CuBLAS(on != 0);
    at::globalContext().setAllowTF32CuDNN(on != 0);
  });
}

// How cuDNN picks its algorithms: the same ones always, whose sums have one order, or those that a
// trial on the first call of each shape found to be fastest.
int deepsim_set_repeatable(int on, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    at::globalContext().setDeterministicCuDNN(on != 0);
    at::globalContext().setBenchmarkCuDNN(on == 0);
  });
}

// A copy in memory that the kernel will not move, so that a GPU fetches it by itself.
int deepsim_pin_memory(void* x, void** out, char* err, size_t err_len) {
  return guarded(err, err_len,
                 [&] { *out = new at::Tensor(static_cast<at::Tensor*>(x)->pin_memory()); });
}

// Most bytes that tensors held at once on a GPU since the last reset; `reset` begins anew.
int deepsim_cuda_peak(int64_t index, int reset, uint64_t* bytes, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    TORCH_CHECK(index >= 0 && index < 128, "there is no GPU ", index);
    auto* allocator = at::getDeviceAllocator(at::kCUDA);
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = allocator->getDeviceStats(device);
    *bytes = static_cast<uint64_t>(stats.allocated_bytes[all].peak);
    if (reset) allocator->resetPeakStats(device);
  });
}

int deepsim_set_flush_denormal(int on) { return at::globalContext().setFlushDenormal(on != 0); }

}  // extern "C"
