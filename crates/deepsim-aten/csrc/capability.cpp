#include "capability.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "bf16/table.h"

namespace deepsim {
namespace {

constexpr const char* VARIABLE = "DEEPSIM_CPU_CAPABILITY";
constexpr const char* NAMES[] = {"default", "avx2", "avx512", "avx512_bf16", "amx"};

Capability best() {
#if defined(__x86_64__)
  if (bf16::amx_usable()) return Capability::Amx;
  if (bf16::avx512_bf16_usable()) return Capability::Avx512Bf16;
  if (__builtin_cpu_supports("avx512f")) return Capability::Avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Capability::Avx2;
#endif
  return Capability::Default;
}

struct Choice {
  Capability capability = best();
  bool plain_bf16 = false;
  std::string error;

  Choice() {
    const char* value = std::getenv(VARIABLE);
    if (!value || !*value) return;
    std::string wanted = value;
    const auto there = static_cast<int>(capability);
    if (wanted == "plain") {
      capability = Capability::Default;
      plain_bf16 = true;
      return;
    }
    for (int i = 0; i <= static_cast<int>(Capability::Amx); ++i) {
      if (wanted != NAMES[i]) continue;
      if (i > there)
        error = std::string(VARIABLE) + " is " + wanted + ", but this processor has " +
                NAMES[there] + " at most: unset it, or choose that";
      else
        capability = static_cast<Capability>(i);
      return;
    }
    for (char& c : wanted)
      if (c < ' ' || c > '~') c = '?';
    error = std::string(VARIABLE) + " is \"" + wanted +
            "\": it must be default, avx2, avx512, avx512_bf16, amx or plain, or be unset";
  }
};

const Choice& choice() {
  static const Choice made;
  return made;
}

}  // namespace

Capability capability() {
  const auto& made = choice();
  TORCH_CHECK(made.error.empty(), made.error);
  return made.capability;
}

bool capability_allows(Capability least) {
  const auto& made = choice();
  return made.error.empty() && made.capability >= least;
}

bool plain_bf16() { return choice().plain_bf16; }

}  // namespace deepsim

// The instruction set of our own kernels as a number, in ascending order; `plain` where the bf16
// kernels run in plain C++. An error leaves its text in `err` and returns 1.
extern "C" int deepsim_capability(int* capability, int* plain, char* err, size_t err_len) {
  const auto& made = deepsim::choice();
  *capability = static_cast<int>(made.capability);
  *plain = made.plain_bf16;
  if (made.error.empty()) return 0;
  if (err_len > 0) {
    std::strncpy(err, made.error.c_str(), err_len - 1);
    err[err_len - 1] = 0;
  }
  return 1;
}
