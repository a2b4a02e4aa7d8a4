// What is made of weights, kept for as long as they stay as they are.
#pragma once
#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <mutex>
#include <utility>

namespace deepsim {

// Made again when the weight's version has changed, and forgotten when the weight is: what is made of
// a frozen network's weights is made once, of a trained one's once for each update. `Key` tells apart
// what is made of one weight.
template <class Key, class Made>
class Remembered {
 public:
  template <class Make>
  std::shared_ptr<const Made> get(const at::Tensor& weight, const Key& key, const Make& make) {
    if (weight.is_inference()) return std::make_shared<const Made>(make());
    const std::lock_guard lock(mutex_);
    const std::pair<c10::TensorImpl*, Key> place{weight.unsafeGetTensorImpl(), key};
    const auto version = static_cast<uint32_t>(weight._version());
    const auto found = entries_.find(place);
    if (found != entries_.end() && !found->second.tensor.expired() &&
        found->second.version == version && found->second.data == weight.const_data_ptr())
      return found->second.made;
    std::erase_if(entries_, [](const auto& e) { return e.second.tensor.expired(); });
    entries_.erase(place);
    auto made = std::make_shared<const Made>(make());
    entries_.emplace(place,
                     Entry{c10::weak_intrusive_ptr<c10::TensorImpl>(weight.getIntrusivePtr()),
                           version, weight.const_data_ptr(), made});
    return made;
  }

 private:
  struct Entry {
    c10::weak_intrusive_ptr<c10::TensorImpl> tensor;
    uint32_t version;
    const void* data;
    std::shared_ptr<const Made> made;
  };
  std::mutex mutex_;
  std::map<std::pair<c10::TensorImpl*, Key>, Entry> entries_;
};

}  // namespace deepsim
