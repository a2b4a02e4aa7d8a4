// CUDA graphs: what one stream was asked for while it was recorded, launched again as one.
// libtorch's CUDAGraph keeps the memory of a recording. A build with the feature `cuda` alone
// compiles this file. It calls nothing of CUDA's runtime by itself, so that nothing is linked but
// libtorch.
// First: CUDA_VERSION decides which members CUDAGraph has.
#include <cuda.h>
static_assert(CUDA_VERSION >= 12040, "CUDAGraph would have other members than in libtorch");

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include "guarded.h"

#include <cstdint>
#include <memory>

namespace {

using deepsim::guarded;
namespace allocator = c10::cuda::CUDACachingAllocator;

// A stream of its own for this thread, and the memory that all its recordings share: they are
// replayed one after the other, and what one leaves behind is read before the next begins.
struct Stream {
  c10::DeviceIndex device, device_before;
  c10::cuda::CUDAStream stream, before;
  c10::MempoolId_t pool;
};

struct Graph {
  at::cuda::CUDAGraph graph;
  Stream* stream;
};

// Whatever it is, it must not hide the error that led here.
template <typename F>
void try_to(F body) {
  try {
    body();
  } catch (...) {
  }
}

}  // namespace

extern "C" {

// Lets this thread work on a stream of its own on GPU `index`: the default one records nothing.
int deepsim_stream_open(int64_t index, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    TORCH_CHECK(index >= 0 && index < 128, "there is no GPU ", index);
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto device_before = c10::cuda::current_device();
    c10::cuda::set_device(device);
    // Streams do not wait for each other: what was begun before is done when this one begins.
    c10::cuda::device_synchronize();
    auto before = c10::cuda::getCurrentCUDAStream(device);
    auto own = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device);
    auto pool = at::cuda::graph_pool_handle();
    c10::cuda::setCurrentCUDAStream(own);
    *out = new Stream{device, device_before, own, before, pool};
  });
}

void deepsim_stream_close(void* opened) {
  std::unique_ptr<Stream> stream(static_cast<Stream*>(opened));
  try_to([] { c10::cuda::device_synchronize(); });
  try_to([&] { c10::cuda::setCurrentCUDAStream(stream->before); });
  try_to([&] { c10::cuda::set_device(stream->device_before); });
}

// From here on this thread's calls, and those of its backward passes, are recorded and not done.
int deepsim_graph_begin(void* opened, void** out, char* err, size_t err_len) {
  return guarded(err, err_len, [&] {
    auto* stream = static_cast<Stream*>(opened);
    c10::cuda::device_synchronize();
    // A recording has memory of its own; what the iterations before it have left is given back.
    allocator::emptyCache();
    auto graph = std::make_unique<Graph>();
    graph->stream = stream;
    // Other threads may go on with what is forbidden in a recording.
    graph->graph.capture_begin(stream->pool, cudaStreamCaptureModeThreadLocal);
    *out = graph.release();
  });
}

int deepsim_graph_end(void* graph, char* err, size_t err_len) {
  return guarded(err, err_len, [&] { static_cast<Graph*>(graph)->graph.capture_end(); });
}

// Ends a recording that failed. The allocator may go on asking the graph which memory is its own:
// it stays where it is.
void deepsim_graph_abandon(void* graph) {
  auto* failed = static_cast<Graph*>(graph);
  try_to([&] { failed->graph.capture_end(); });
  const auto* stream = failed->stream;
  try_to([&] { allocator::endAllocateToPool(stream->device, stream->pool); });
  try_to([&] { at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(stream->pool); });
}

int deepsim_graph_replay(void* graph, char* err, size_t err_len) {
  return guarded(err, err_len, [&] { static_cast<Graph*>(graph)->graph.replay(); });
}

void deepsim_graph_drop(void* graph) {
  // A launch may be under way.
  try_to([] { c10::cuda::device_synchronize(); });
  try_to([&] { delete static_cast<Graph*>(graph); });
}

}  // extern "C"
