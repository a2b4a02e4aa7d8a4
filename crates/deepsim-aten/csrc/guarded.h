// How a function of the C ABI ends when C++ throws.
#pragma once

#include <cstddef>
#include <cstring>
#include <exception>

namespace deepsim {

inline void say(char* err, std::size_t err_len, const char* text) {
  if (err_len == 0) return;
  std::strncpy(err, text, err_len - 1);
  err[err_len - 1] = 0;
}

// Runs `body`; an exception leaves its text in `err` and returns 1.
template <typename F>
int guarded(char* err, std::size_t err_len, F body) {
  try {
    body();
    return 0;
  } catch (const std::exception& e) {
    say(err, err_len, e.what());
  } catch (...) {
    say(err, err_len, "unknown C++ exception");
  }
  return 1;
}

}  // namespace deepsim
