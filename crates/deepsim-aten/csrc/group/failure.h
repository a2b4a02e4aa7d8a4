// Why a call on a group of processes failed.
#pragma once

#include <stdexcept>
#include <string>

namespace deepsim::group {

// src/group.rs has the same numbers.
enum class Why : int {
  Other = 1,
  PortInUse = 2,
  Unreachable = 3,
  Missing = 4,  // the text is the ranks, separated by commas
  Disagree = 5,
  Gone = 6,
  Late = 7,
  Tensor = 8,
};

struct Failure : std::runtime_error {
  Failure(Why why, const std::string& text) : std::runtime_error(text), why(why) {}
  Why why;
};

}  // namespace deepsim::group
