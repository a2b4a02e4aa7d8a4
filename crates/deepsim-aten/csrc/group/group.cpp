// Groups of processes by PyTorch's own engine: c10d's TCPStore, through which processes find each
// other, and its backend Gloo, which moves tensors between them. Both are part of libtorch_cpu.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "../second_derivatives.h"
#include "failure.h"
#include "group.h"
#include "sockets.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace deepsim::group {

std::atomic<int> overlapped_passes{0};

std::string words(const std::exception& e) {
  const auto* torch = dynamic_cast<const c10::Error*>(&e);
  std::string text = torch ? torch->what_without_backtrace() : e.what();
  if (const auto end = text.find("] "); text.rfind("[/", 0) == 0 && end != std::string::npos)
    text.erase(0, end + 2);
  if (const auto advice = text.find(" This is typically"); advice != std::string::npos)
    text.erase(advice);
  return text;
}

void lost(const std::exception& e) {
  const auto text = words(e);
  const auto says = [&](const char* part) { return text.find(part) != std::string::npos; };
  throw Failure(says("imed out") || says("imeout") ? Why::Late : Why::Gone, text);
}

c10::intrusive_ptr<c10d::Backend> Group::engine(const at::Tensor& tensor) {
#ifdef USE_C10D_NCCL
  if (tensor.is_cuda()) {
    if (!nccl) nccl = open_nccl(store, backend->getRank(), backend->getSize(), timeout);
    return nccl;
  }
#endif
  (void)tensor;
  return backend;
}

const at::Tensor& suited(void* tensor, const char* what) {
  const auto& t = *static_cast<at::Tensor*>(tensor);
  const auto refuse = [&](const std::string& is) {
    throw Failure(Why::Tensor, std::string(what) + " needs " + is);
  };
  if (!t.defined()) refuse("a tensor that is defined");
#ifdef USE_C10D_NCCL
  const bool moves = t.device().is_cpu() || t.device().is_cuda();
#else
  const bool moves = t.device().is_cpu();
#endif
  if (!moves) refuse("a tensor on the CPU, not on " + t.device().str());
  if (t.layout() != at::kStrided) refuse("a dense tensor");
  const auto type = t.scalar_type();
  if (type != at::kFloat && type != at::kDouble && type != at::kBFloat16 && type != at::kLong)
    refuse(std::string("a tensor of f32, f64, bf16 or i64, not of ") + c10::toString(type));
  // Gloo takes the memory from the first element on, whatever the strides say.
  if (!t.is_contiguous()) refuse("a contiguous tensor");
  return t;
}

Call call_with(Operation operation, int64_t root, const at::Tensor& tensor) {
  return {operation, root, static_cast<int64_t>(tensor.scalar_type()),
          static_cast<int64_t>(tensor.device().type()), tensor.numel()};
}

Call call_of_sums(const std::vector<at::Tensor>& tensors) {
  Call call{Operation::Sums, static_cast<int64_t>(tensors.size())};
  if (!tensors.empty()) {
    call.type = static_cast<int64_t>(tensors[0].scalar_type());
    call.device = static_cast<int64_t>(tensors[0].device().type());
  }
  uint64_t digest = 14695981039346656037u;  // FNV-1a, a number at a time
  for (const auto& t : tensors) {
    call.elements += t.numel();
    for (const auto part : {t.numel(), static_cast<int64_t>(t.scalar_type()),
                            static_cast<int64_t>(t.device().type())})
      digest = (digest ^ static_cast<uint64_t>(part)) * 1099511628211u;
  }
  // `agree` needs a number that has a negative.
  call.layout = static_cast<int64_t>(digest >> 2);
  return call;
}

namespace {

// A part of what the processes have to call alike.
struct Part {
  const char* name;
  int64_t value;
  std::string (*text)(int64_t);
};

std::string number(int64_t value) { return std::to_string(value); }
std::string type_name(int64_t value) { return c10::toString(static_cast<at::ScalarType>(value)); }
std::string device_name(int64_t value) {
  return c10::DeviceTypeName(static_cast<c10::DeviceType>(value), true);
}
std::string operation_name(int64_t value) {
  switch (static_cast<Operation>(value)) {
    case Operation::Sum:
      return "sum";
    case Operation::Maximum:
      return "maximum";
    case Operation::Gather:
      return "gathering";
    case Operation::Broadcast:
      return "broadcast";
    default:
      return "sums of several";
  }
}

}  // namespace

void agree(Group& group, const Call& call) {
  const std::array<Part, 6> parts{{
      {"operation", static_cast<int64_t>(call.operation), operation_name},
      {call.operation == Operation::Sums ? "tensors" : "root", call.root, number},
      {"type", call.type, type_name},
      {"device", call.device, device_name},
      {"elements", call.elements, number},
      {"layout", call.layout, number},
  }};
  // The largest of a number and of its negative: the same where all have the same number.
  std::vector<at::Tensor> extremes{at::empty({2, static_cast<int64_t>(parts.size())}, at::kLong)};
  auto* values = extremes[0].data_ptr<int64_t>();
  for (size_t i = 0; i < parts.size(); ++i) {
    values[i] = parts[i].value;
    values[parts.size() + i] = -parts[i].value;
  }
  c10d::AllreduceOptions options;
  options.reduceOp = c10d::ReduceOp::MAX;
  group.backend->allreduce(extremes, options)->wait();
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [name, own, text] = parts[i];
    const auto most = values[i], least = -values[parts.size() + i];
    if (most != least)
      throw Failure(Why::Disagree, std::string(name) + " " + text(own) + " here, " +
                                       text(own == most ? least : most) + " in another process");
  }
}

}  // namespace deepsim::group

namespace {

using namespace deepsim::group;
using c10d::ProcessGroupGloo;
using std::chrono::milliseconds;

c10::intrusive_ptr<c10d::Store> open_store(const std::string& host, uint16_t port,
                                           std::optional<int> listening, milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = port;
  options.isServer = listening.has_value();
  options.masterListenFd = listening;
  // It would not say who is missing; `meet` does.
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    return c10::make_intrusive<c10d::TCPStore>(host, options);
  } catch (const std::exception& e) {
    throw Failure(Why::Unreachable, words(e));
  }
}

// How long the process that serves stays for the others when it has given up.
constexpr milliseconds LINGER(300);

// Where a process that gives up leaves its reason, so that nobody waits for a group that won't be.
constexpr const char* OVER = "over";

// Waits until all ranks are at the store. The backend by itself tries again and again, past its
// timeout, where one never comes; the store's own wait does not say who is missing.
void wait_for_all(c10d::Store& store, int64_t rank, int64_t size, Clock::time_point deadline) {
  const auto there = store.compareSet("size", "", std::to_string(size));
  if (there != std::to_string(size))
    throw Failure(Why::Disagree, "one process was told of " + there + " processes, another of " +
                                     std::to_string(size));
  const auto key = [](int64_t r) { return "joined/" + std::to_string(r); };
  if (store.add(key(rank), 1) != 1)
    throw Failure(Why::Disagree, "rank " + std::to_string(rank) +
                                     " is there twice, or an earlier group had the same prefix");
  std::vector<std::string> all;
  for (int64_t r = 0; r < size; ++r) all.push_back(key(r));
  while (!store.check(all)) {
    if (store.check({OVER})) {
      const auto reason = store.get_to_str(OVER);
      throw Failure(static_cast<Why>(reason.at(0) - '0'), reason.substr(1));
    }
    if (Clock::now() < deadline) {
      std::this_thread::sleep_for(PAUSE);
      continue;
    }
    std::string missing;
    for (int64_t r = 0; r < size; ++r)
      if (!store.check({key(r)})) missing += (missing.empty() ? "" : ",") + std::to_string(r);
    if (!missing.empty()) throw Failure(Why::Missing, missing);
  }
}

void meet(c10d::Store& store, int64_t rank, int64_t size, bool serves,
          Clock::time_point deadline) {
  try {
    wait_for_all(store, rank, size, deadline);
  } catch (const Failure& failure) {
    store.set(OVER, std::to_string(static_cast<int>(failure.why)) + failure.what());
    auto told = store.add("told", 1);
    // The store ends with this process; the others ask it every now and then.
    for (const auto end = Clock::now() + LINGER; serves && told < size && Clock::now() < end;) {
      std::this_thread::sleep_for(PAUSE);
      told = store.add("told", 0);
    }
    throw;
  }
}

struct Place {
  std::string host;
  uint16_t port;
  int64_t rank;
  int64_t size;
  bool serves;
  std::string prefix;
  milliseconds timeout;
  Clock::time_point deadline;
};

// How far a process has come that joins.
enum class Phase { Resolve, Search, Meet, Connect };

std::unique_ptr<Group> join(const Place& place, std::atomic<Phase>& phase) {
  auto group = std::make_unique<Group>();
  group->timeout = place.timeout;
  const auto there = deepsim::group::resolve(place.host, place.port, place.deadline);
  phase = Phase::Search;
  std::optional<int> listening;
  if (place.serves) listening = deepsim::group::listening(place.host, there);
  const auto own = deepsim::group::reach(there, place.deadline);
  group->store = c10::make_intrusive<c10d::PrefixStore>(
      place.prefix, open_store(place.host, place.port, listening, place.timeout));
  phase = Phase::Meet;
  among_peers([&] {
    meet(*group->store, place.rank, place.size, place.serves, place.deadline);
  });
  phase = Phase::Connect;
  // People who know better name the interface, by PyTorch's variable.
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  auto options = interface && *interface ? ProcessGroupGloo::Options::create_default(place.timeout)
                                         : ProcessGroupGloo::Options::create(place.timeout);
  if (options->devices.empty())
    options->devices.push_back(ProcessGroupGloo::createDeviceForHostname(own));
  among_peers([&] {
    group->backend = c10::make_intrusive<ProcessGroupGloo>(
        group->store, static_cast<int>(place.rank), static_cast<int>(place.size), options);
    // The process that serves may leave at once: by then everyone has to have all addresses.
    group->backend->barrier()->wait();
  });
  return group;
}

// `join` in a thread that is left behind where it outlasts the deadline: c10d waits for ever for
// the first answer of what listens, which may be another program, and Gloo longer than it was told
// for a peer that died meanwhile.
std::unique_ptr<Group> join_in_time(Place place) {
  struct Shared {
    std::atomic<Phase> phase{Phase::Resolve};
    std::promise<std::unique_ptr<Group>> joined;
  };
  const auto shared = std::make_shared<Shared>();
  auto joined = shared->joined.get_future();
  // `join` itself keeps the deadline wherever it can, and knows more.
  const auto last = place.deadline + LINGER + 5 * PAUSE;
  std::thread([shared, place = std::move(place)] {
    try {
      shared->joined.set_value(join(place, shared->phase));
    } catch (...) {
      shared->joined.set_exception(std::current_exception());
    }
  }).detach();
  if (joined.wait_until(last) == std::future_status::ready) return joined.get();
  switch (shared->phase.load()) {
    case Phase::Resolve:
      throw Failure(Why::Unreachable, "its name was not found in time");
    case Phase::Search:
      throw Failure(Why::Unreachable, "what listens there does not answer as PyTorch's store");
    case Phase::Meet:
      throw Failure(Why::Late, "the store does not answer any more");
    default:
      throw Failure(Why::Late, "a process that had come does not answer any more");
  }
}

template <typename F>
void collective(void* group, const Call& call, const at::Tensor& tensor, F start) {
  at::NoGradGuard no_grad;
  auto& of = *static_cast<Group*>(group);
  among_peers([&] {
    agree(of, call);
    if (tensor.numel() == 0) return;
    std::vector<at::Tensor> one{tensor};
    start(*of.engine(tensor), one)->wait();
  });
  // Gloo alone does not count as a change; what is derived from weights relies on it.
  tensor.unsafeGetTensorImpl()->bump_version();
}

// A sum over the parts of a batch, by whoever has them: 0 and a new tensor, or another number.
using SumOf = int (*)(void* tensor, void** sum);

// Such a sum as an operation of autograd. A loss depends on the sum, and so on the values of all
// parts: the gradient of a value is the sum of all parts' gradients of the sum.
struct Summed : torch::autograd::Function<Summed> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            int64_t sum) {
    ctx->saved_data["sum"] = sum;
    return call(sum, x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    deepsim::refuse_second_derivatives("sum over the parts of a batch");
    if (deepsim::group::overlapped_passes.load() > 0)
      throw std::runtime_error("an exchange inside a backward pass that its own sums overlap");
    return {call(ctx->saved_data["sum"].toInt(), gradients[0]), at::Tensor()};
  }

  static at::Tensor call(int64_t sum, const at::Tensor& x) {
    at::NoGradGuard no_grad;
    auto own = x.detach().contiguous();
    void* out = nullptr;
    // The caller keeps the reason.
    if (reinterpret_cast<SumOf>(sum)(&own, &out) != 0)
      throw std::runtime_error("a sum over the parts of a batch has failed");
    const std::unique_ptr<at::Tensor> total(static_cast<at::Tensor*>(out));
    return *total;
  }
};

}  // namespace

extern "C" {

// Joins a group; `out` gets it, and `deepsim_group_leave` frees it.
int deepsim_group_join(const char* host, uint16_t port, int64_t rank, int64_t size, int serves,
                       const char* prefix, int64_t timeout_ms, void** out, char* err,
                       size_t err_len) {
  return explained(err, err_len, [&] {
    const milliseconds timeout(timeout_ms);
    *out = join_in_time({host, port, rank, size, serves != 0, prefix, timeout,
                         Clock::now() + timeout})
               .release();
  });
}

// Sum (0) or maximum (1) over all ranks, in place.
int deepsim_group_all_reduce(void* group, void* tensor, int max, char* err, size_t err_len) {
  return explained(err, err_len, [&] {
    const auto& t = suited(tensor, "a reduction");
    c10d::AllreduceOptions options;
    options.reduceOp = max ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    collective(group, call_with(max ? Operation::Maximum : Operation::Sum, 0, t), t,
               [&](auto& backend, auto& one) { return backend.allreduce(one, options); });
  });
}

int deepsim_group_broadcast(void* group, void* tensor, int64_t root, char* err, size_t err_len) {
  return explained(err, err_len, [&] {
    const auto& t = suited(tensor, "a broadcast");
    c10d::BroadcastOptions options;
    options.rootRank = root;
    collective(group, call_with(Operation::Broadcast, root, t), t,
               [&](auto& backend, auto& one) { return backend.broadcast(one, options); });
  });
}

// Every rank's tensor, one behind the other: a new tensor [ranks, ...].
int deepsim_group_all_gather(void* group, void* tensor, void** out, char* err, size_t err_len) {
  return explained(err, err_len, [&] {
    const auto& t = suited(tensor, "a gathering");
    auto shape = t.sizes().vec();
    shape.insert(shape.begin(), static_cast<Group*>(group)->backend->getSize());
    const auto all = at::empty(shape, t.options());
    collective(group, call_with(Operation::Gather, 0, t), t, [&](auto& backend, auto& one) {
      std::vector<std::vector<at::Tensor>> parts{all.unbind(0)};
      return backend.allgather(parts, one);
    });
    *out = new at::Tensor(all);
  });
}

// A sum over the parts of a batch, differentiable.
int deepsim_summed(void* tensor, SumOf sum, void** out, char* err, size_t err_len) {
  return deepsim::guarded(err, err_len, [&] {
    const auto& t = *static_cast<at::Tensor*>(tensor);
    *out = new at::Tensor(Summed::apply(t, reinterpret_cast<int64_t>(sum)));
  });
}

int deepsim_group_barrier(void* group, char* err, size_t err_len) {
  return explained(err, err_len, [&] {
    among_peers([&] { static_cast<Group*>(group)->backend->barrier()->wait(); });
  });
}

void deepsim_group_leave(void* group) { delete static_cast<Group*>(group); }

}  // extern "C"
