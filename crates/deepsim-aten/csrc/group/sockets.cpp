#include "sockets.h"

#include "failure.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

namespace deepsim::group {

namespace {

using std::chrono::milliseconds;

// Connects to one address and returns its own end's; an empty text with `errno` where it cannot.
std::string own_end(const addrinfo& to, int wait_ms) {
  const int s = socket(to.ai_family, to.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, to.ai_protocol);
  if (s < 0) return "";
  int error = 0;
  if (connect(s, to.ai_addr, to.ai_addrlen) != 0) error = errno;
  if (error == EINPROGRESS) {
    pollfd open{s, POLLOUT, 0};
    socklen_t len = sizeof error;
    if (poll(&open, 1, wait_ms) <= 0)
      error = ETIMEDOUT;
    else
      getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len);
  }
  sockaddr_storage own{};
  socklen_t len = sizeof own;
  char text[NI_MAXHOST] = "";
  if (!error && getsockname(s, reinterpret_cast<sockaddr*>(&own), &len) == 0)
    getnameinfo(reinterpret_cast<sockaddr*>(&own), len, text, sizeof text, nullptr, 0,
                NI_NUMERICHOST);
  close(s);
  errno = error;
  return text;
}

bool this_machine_only(const std::string& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}

}  // namespace

Addresses resolve(const std::string& host, uint16_t port, Clock::time_point deadline) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  for (;;) {
    addrinfo* found = nullptr;
    const int failed = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &found);
    if (!failed) return {found, freeaddrinfo};
    // A container's name may be known only a while after it starts.
    if (Clock::now() >= deadline) throw Failure(Why::Unreachable, gai_strerror(failed));
    std::this_thread::sleep_for(PAUSE);
  }
}

std::string reach(const Addresses& there, Clock::time_point deadline) {
  for (;;) {
    int error = 0;
    for (const auto* to = there.get(); to; to = to->ai_next) {
      const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()).count();
      auto own = own_end(*to, static_cast<int>(std::clamp<int64_t>(left, 1, 5000)));
      if (!own.empty()) return own;
      error = errno;
    }
    if (Clock::now() >= deadline) throw Failure(Why::Unreachable, std::strerror(error));
    std::this_thread::sleep_for(PAUSE);
  }
}

int listening(const std::string& host, const Addresses& there) {
  const auto& first = *there;
  sockaddr_storage at{};
  std::memcpy(&at, first.ai_addr, first.ai_addrlen);
  // Others may know this machine by an address that no interface of it has.
  if (!this_machine_only(host)) {
    if (first.ai_family == AF_INET)
      reinterpret_cast<sockaddr_in*>(&at)->sin_addr.s_addr = htonl(INADDR_ANY);
    else
      reinterpret_cast<sockaddr_in6*>(&at)->sin6_addr = in6addr_any;
  }
  const int s = socket(first.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int yes = 1;
  // Connections of an earlier group that are still closing do not keep the port.
  if (s >= 0 && setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
      bind(s, reinterpret_cast<sockaddr*>(&at), first.ai_addrlen) == 0 && listen(s, SOMAXCONN) == 0)
    return s;
  const int error = errno;
  if (s >= 0) close(s);
  throw Failure(error == EADDRINUSE ? Why::PortInUse : Why::Unreachable, std::strerror(error));
}

}  // namespace deepsim::group
