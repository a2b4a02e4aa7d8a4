// Gradients of our own operations come without a graph.
#pragma once

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

namespace deepsim {

// Called first in a backward pass. There gradients are recorded only where somebody asked for a graph
// of them (create_graph), to differentiate them again: what our kernels compute would count as a
// constant then, and second derivatives would lack a part without a word.
inline void refuse_second_derivatives(const char* what) {
  TORCH_CHECK(!at::GradMode::is_enabled(), "DeepSim's ", what,
              " has no second derivatives: ask for gradients without a graph (create_graph), or "
              "compose the operation of libtorch's");
}

}  // namespace deepsim
