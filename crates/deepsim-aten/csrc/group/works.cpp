// Sums over the processes of a group that are under way while this one goes on: of several tensors
// at once, and of gradients while their backward pass still runs.
#include "group.h"

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace deepsim::group;
using torch::autograd::variable_list;

// Sums that were started, in this order by every process.
class Works {
 public:
  Works() = default;
  Works(const Works&) = delete;
  Works& operator=(const Works&) = delete;
  // Nothing may write to the tensors later, so it waits.
  ~Works() {
    try {
      finish();
    } catch (...) {
      // Who wanted to know has asked before.
    }
  }

  void start(Group& group, const at::Tensor& tensor) {
    if (tensor.numel() == 0) return;
    std::vector<at::Tensor> one{tensor};
    works_.push_back(group.engine(tensor)->allreduce(one));
    tensors_.push_back(tensor);
  }

  // Waits for all, also where one fails, and throws the first failure.
  void finish() {
    std::exception_ptr failure;
    for (const auto& work : works_) {
      try {
        work->wait();
      } catch (...) {
        if (!failure) failure = std::current_exception();
      }
    }
    works_.clear();
    // The backends alone do not count as a change.
    for (const auto& tensor : tensors_) tensor.unsafeGetTensorImpl()->bump_version();
    tensors_.clear();
    if (failure) std::rethrow_exception(failure);
  }

 private:
  std::vector<c10::intrusive_ptr<c10d::Work>> works_;
  std::vector<at::Tensor> tensors_;
};

std::vector<at::Tensor> tensors(void* const* all, size_t count, const char* what) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(suited(all[i], what));
  return out;
}

// Where the gradient of a weight goes, and which bucket it belongs to.
struct Place {
  at::Tensor values;
  size_t bucket;
  bool filled = false;
};

// Gradients that are summed together. `sent` is `values`, or their copy of another type.
struct Bucket {
  at::Tensor values;
  at::Tensor sent;
  size_t missing = 0;
};

// A backward pass that starts a bucket's sum as soon as its gradients and those of all earlier
// buckets are there, so that all processes start the same sums in the same order.
struct Pass {
  Group& group;
  Works& works;
  bool add;
  std::vector<Place> places;
  std::vector<Bucket> buckets;
  size_t next = 0;
  std::exception_ptr failure;
  // On GPUs the pass has a thread for each device.
  std::mutex mutex;

  // A weight's whole gradient; returns where it lies from now on.
  at::Tensor take(size_t weight, const at::Tensor& gradient) {
    // The caller is told when the pass is over.
    if (!gradient.defined()) return gradient;
    at::NoGradGuard no_grad;
    auto& place = places[weight];
    if (add)
      place.values.add_(gradient);
    else
      place.values.copy_(gradient);
    const std::lock_guard<std::mutex> lock(mutex);
    if (place.filled) return place.values;
    place.filled = true;
    --buckets[place.bucket].missing;
    for (; !failure && next < buckets.size() && buckets[next].missing == 0; ++next) {
      try {
        auto& bucket = buckets[next];
        if (!bucket.sent.is_same(bucket.values)) bucket.sent.copy_(bucket.values);
        works.start(group, bucket.sent);
      } catch (...) {
        // What the engine makes of an exception is not ours: it is thrown after the pass.
        failure = std::current_exception();
      }
    }
    return place.values;
  }
};

struct Hook : torch::autograd::FunctionPreHook {
  Hook(Pass& pass, size_t weight) : pass(pass), weight(weight) {}

  // A weight is the only input of the node that gathers its gradient. What this returns is kept
  // until the pass is over instead of the gradient, whose memory is free at once.
  variable_list operator()(const variable_list& gradients) override {
    return {pass.take(weight, gradients.at(0))};
  }

  Pass& pass;
  size_t weight;
};

// Hooks of weights for one pass. (Those of `Tensor::register_hook` leave an empty entry behind when
// they are removed, and a training has many passes.)
class Hooks {
 public:
  Hooks() = default;
  Hooks(const Hooks&) = delete;
  Hooks& operator=(const Hooks&) = delete;
  ~Hooks() {
    for (const auto& [weight, own] : placed_)
      std::erase_if(torch::autograd::impl::hooks(weight),
                    [own = own](const auto& hook) { return hook.get() == own; });
  }

  void add(const at::Tensor& weight, std::unique_ptr<Hook> hook) {
    const torch::autograd::FunctionPreHook* own = hook.get();
    placed_.emplace_back(weight, own);
    torch::autograd::impl::add_hook(weight, std::move(hook));
  }

 private:
  std::vector<std::pair<at::Tensor, const torch::autograd::FunctionPreHook*>> placed_;
};

struct Overlapped {
  Overlapped() { ++overlapped_passes; }
  ~Overlapped() { --overlapped_passes; }
  Overlapped(const Overlapped&) = delete;
  Overlapped& operator=(const Overlapped&) = delete;
};

[[noreturn]] void refuse(const std::string& text) { throw Failure(Why::Tensor, text); }

}  // namespace

extern "C" {

// Starts the sums of several tensors over all ranks, in place; `out` gets what is under way. The
// processes ask each other once for all of them.
int deepsim_group_all_reduce_start(void* group, void* const* all, size_t count, void** out,
                                   char* err, size_t err_len) {
  return explained(err, err_len, [&] {
    const auto sums = tensors(all, count, "a reduction");
    auto& of = *static_cast<Group*>(group);
    at::NoGradGuard no_grad;
    auto works = std::make_unique<Works>();
    among_peers([&] {
      agree(of, call_of_sums(sums));
      for (const auto& tensor : sums) works->start(of, tensor);
    });
    *out = works.release();
  });
}

// Waits for all of them; `deepsim_group_works_free` frees them, and waits where nobody has.
int deepsim_group_all_reduce_wait(void* works, char* err, size_t err_len) {
  return explained(err, err_len,
                   [&] { among_peers([&] { static_cast<Works*>(works)->finish(); }); });
}

void deepsim_group_works_free(void* works) { delete static_cast<Works*>(works); }

// The backward pass of `loss` down to `weights`. Each gradient is copied to its place (or added
// there), and each bucket is summed over all ranks, while the pass goes on; `out` gets what is
// under way.
int deepsim_group_backward(void* group, void* loss, void* const* weights, void* const* places,
                           const int64_t* bucket_of, size_t count, void* const* buckets,
                           void* const* sent, size_t bucket_count, int add, void** out, char* err,
                           size_t err_len) {
  return explained(err, err_len, [&] {
    const auto& root = *static_cast<at::Tensor*>(loss);
    if (!root.defined() || root.numel() != 1 || !root.requires_grad())
      refuse("a backward pass needs a loss that is one number with a graph");
    const auto sums = tensors(sent, bucket_count, "a reduction");
    const auto values = tensors(buckets, bucket_count, "a bucket");
    auto& of = *static_cast<Group*>(group);
    auto works = std::make_unique<Works>();
    Pass pass{of, *works, add != 0};
    for (size_t i = 0; i < bucket_count; ++i) pass.buckets.push_back({values[i], sums[i]});
    torch::autograd::edge_list edges;
    for (size_t i = 0; i < count; ++i) {
      const auto& weight = *static_cast<at::Tensor*>(weights[i]);
      const auto& place = *static_cast<at::Tensor*>(places[i]);
      if (!weight.defined() || !weight.requires_grad() || !weight.is_leaf())
        refuse("weight " + std::to_string(i) + " is none that trains");
      if (place.sizes() != weight.sizes())
        refuse("the place of weight " + std::to_string(i) + " has another shape");
      const auto bucket = static_cast<size_t>(bucket_of[i]);
      pass.buckets.at(bucket).missing += 1;
      pass.places.push_back({place, bucket});
      edges.push_back(torch::autograd::impl::gradient_edge(weight));
    }
    among_peers([&] { agree(of, call_of_sums(sums)); });
    {
      const Overlapped overlapped;
      Hooks hooks;
      for (size_t i = 0; i < count; ++i)
        hooks.add(*static_cast<at::Tensor*>(weights[i]), std::make_unique<Hook>(pass, i));
      const torch::autograd::edge_list roots{torch::autograd::impl::gradient_edge(root)};
      const variable_list ones{at::ones_like(root)};
      torch::autograd::Engine::get_default_engine().execute(roots, ones, false, false, false,
                                                            edges);
    }
    if (pass.failure) among_peers([&] { std::rethrow_exception(pass.failure); });
    for (size_t i = 0; i < count; ++i)
      if (!pass.places[i].filled)
        refuse("weight " + std::to_string(i) + " takes no part in the loss");
    *out = works.release();
  });
}

}  // extern "C"
