// Where the processes of a group meet, as far as the system knows it.
#pragma once

#include <netdb.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace deepsim::group {

using Clock = std::chrono::steady_clock;

// Between two questions whether something is there yet.
constexpr std::chrono::milliseconds PAUSE(20);

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// All three throw `Failure`.

// The addresses of a host by its name or number.
Addresses resolve(const std::string& host, uint16_t port, Clock::time_point deadline);

// Waits until something listens at one of them: c10d's own client tries past its timeout and tells
// every try on stderr. Returns the address of this machine that it is reached from, so that
// processes that meet there reach each other: 127.0.0.1 where all are on one machine. (PyTorch
// binds to what the machine's own name resolves to; in containers nobody may reach that.)
std::string reach(const Addresses& there, Clock::time_point deadline);

// A socket that listens at the port, for c10d's server: only for this machine where `host` means
// none but this one. c10d's own is open to every machine, and being one of IPv6 it asks the name
// server for the name of 127.0.0.1 with each process that connects.
int listening(const std::string& host, const Addresses& there);

}  // namespace deepsim::group
