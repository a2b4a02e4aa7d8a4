#include "dispatch.h"

#include <atomic>
#include <map>
#include <mutex>
#include <tuple>

#include "../capability.h"

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
  struct Entry {
    c10::weak_intrusive_ptr<c10::TensorImpl> tensor;
    uint32_t version;
    const void* data;
    std::shared_ptr<const Packed> packed;
  };
  using Key = std::tuple<c10::TensorImpl*, Use, Geometry>;
  static std::mutex mutex;
  static std::map<Key, Entry> entries;
  if (weight.is_inference()) return std::make_shared<const Packed>(make());
  const std::lock_guard lock(mutex);
  const Key key{weight.unsafeGetTensorImpl(), use, geometry};
  const auto version = static_cast<uint32_t>(weight._version());
  const auto found = entries.find(key);
  if (found != entries.end() && !found->second.tensor.expired() &&
      found->second.version == version && found->second.data == weight.const_data_ptr())
    return found->second.packed;
  std::erase_if(entries, [](const auto& e) { return e.second.tensor.expired(); });
  entries.erase(key);
  auto packed = std::make_shared<const Packed>(make());
  entries.emplace(key, Entry{c10::weak_intrusive_ptr<c10::TensorImpl>(weight.getIntrusivePtr()),
                             version, weight.const_data_ptr(), packed});
  return packed;
}

}  // namespace deepsim::bf16
