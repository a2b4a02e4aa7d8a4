#include "dispatch.h"

#include <atomic>
#include <utility>

#include "../capability.h"
#include "../remembered.h"

namespace deepsim::bf16 {
namespace {

std::atomic<int> chosen{-1};  // nothing was chosen

}  // namespace

Code code() {
  const auto wish = static_cast<Code>(chosen.load());
  const bool amx = capability_allows(Capability::Amx);
  const bool avx512 = capability_allows(Capability::Avx512Bf16);
  switch (wish) {
    case Code::None:
    case Code::Plain:
      return wish;
    case Code::Amx:
      return amx ? wish : Code::None;
    case Code::Avx512:
      return avx512 ? wish : Code::None;
  }
  return amx ? Code::Amx : avx512 ? Code::Avx512 : plain_bf16() ? Code::Plain : Code::None;
}

const RowKernels* row_kernels() { return DEEPSIM_CODE(rows); }

void choose(Code c) { chosen = static_cast<int>(c); }

std::shared_ptr<const Packed> packed_once(const at::Tensor& weight, Use use,
                                          const Geometry& geometry,
                                          const std::function<Packed()>& make) {
  static Remembered<std::pair<Use, Geometry>, Packed> remembered;
  return remembered.get(weight, {use, geometry}, make);
}

}  // namespace deepsim::bf16
