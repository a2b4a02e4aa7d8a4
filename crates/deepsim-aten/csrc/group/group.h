// What the calls on a group of processes share.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "../guarded.h"
#include "failure.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace deepsim::group {

// `guarded`, with the reason as its result.
template <typename F>
int explained(char* err, size_t err_len, F body) {
  Why why = Why::Other;
  const int failed = deepsim::guarded(err, err_len, [&] {
    try {
      body();
    } catch (const Failure& failure) {
      why = failure.why;
      throw;
    }
  });
  return failed ? static_cast<int>(why) : 0;
}

// What an exception says, without the backtrace that c10's have, the source lines that Gloo's begin
// with and the advice that they end with.
std::string words(const std::exception& e);

// Throws what has gone wrong among processes: one is late where the text speaks of time, else gone.
[[noreturn]] void lost(const std::exception& e);

// Runs what waits for other processes: whatever goes wrong there is a process that is gone or late.
template <typename F>
void among_peers(F body) {
  try {
    body();
  } catch (const Failure&) {
    throw;
  } catch (const std::exception& e) {
    lost(e);
  }
}

struct Group {
  // The store outlives the backends, which ask it for addresses.
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> backend;
  // NCCL, made for the first tensor on a GPU.
  c10::intrusive_ptr<c10d::Backend> nccl;
  std::chrono::milliseconds timeout{};

  // What moves such a tensor.
  c10::intrusive_ptr<c10d::Backend> engine(const at::Tensor& tensor);
};

// NCCL for tensors on GPUs (nccl.cpp). Only a build with the feature `nccl` has it.
c10::intrusive_ptr<c10d::Backend> open_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                            int size, std::chrono::milliseconds timeout);

// A tensor that can be exchanged; `Failure` says why one cannot.
const at::Tensor& suited(void* tensor, const char* what);

enum class Operation : int64_t { Sum, Maximum, Broadcast, Gather, Sums };

// What all processes have to call alike.
struct Call {
  Operation operation;
  int64_t root = 0;      // of `Sums`: how many tensors
  int64_t type = 0;      // of `Sums`: the first one's
  int64_t device = 0;    // likewise
  int64_t elements = 0;  // of all of them
  int64_t layout = 0;    // of `Sums`: a digest of the size, type and device of each tensor
};

Call call_with(Operation operation, int64_t root, const at::Tensor& tensor);
Call call_of_sums(const std::vector<at::Tensor>& tensors);

// Gloo ends the whole process where others bring a tensor of another size, so all ask first.
void agree(Group& group, const Call& call);

// Backward passes of this process during which sums are started (works.cpp). No other exchange may
// come in between: processes would start them in different orders.
extern std::atomic<int> overlapped_passes;

}  // namespace deepsim::group
