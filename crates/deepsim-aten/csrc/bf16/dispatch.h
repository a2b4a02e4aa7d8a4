// Which of the compiled codes runs, and what is remembered of weights.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <vector>

#include "function.h"
#include "plan.h"
#include "rows.h"
#include "table.h"

#if defined(DEEPSIM_AMX)
#define DEEPSIM_CODE(name)                                     \
  (code() == Code::Amx     ? static_cast<decltype(name##_plain())>(name##_amx()) \
   : code() == Code::Plain ? name##_plain()                    \
                           : nullptr)
#else
#define DEEPSIM_CODE(name) (code() == Code::Plain ? name##_plain() : nullptr)
#endif

namespace deepsim::bf16 {

// Kernels of rows and their products; null where there is no code.
const RowKernels* row_kernels();

using Packed = std::vector<Half>;

// What weights are packed for.
enum class Use : int { Down, Up, Rows };

// What `make` makes of a weight, made again when the weight's version has changed and forgotten
// when the weight is: a frozen network's weights are packed once, a trained one's once for each
// update.
std::shared_ptr<const Packed> packed_once(const at::Tensor& weight, Use use,
                                          const Geometry& geometry,
                                          const std::function<Packed()>& make);

}  // namespace deepsim::bf16
