#pragma once

#include <chrono>

namespace gloo {

// c10d's inline code calls it; the vtable that leads there is libtorch's.
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class UnboundBuffer;
}

}  // namespace gloo
