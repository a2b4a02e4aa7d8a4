// What TorchScript modules print and libtorch warns about, for the caller's function instead of the
// process's streams: results for programs go to stdout, and text from files is not for a terminal as it is.
#include <c10/util/Exception.h>
#include <torch/csrc/jit/runtime/print_handler.h>

#include <atomic>
#include <cstddef>
#include <string>

namespace {

using Hear = void (*)(int warning, const char* text, std::size_t len);
std::atomic<Hear> hear{nullptr};

void pass(int warning, const std::string& text) {
  if (Hear f = hear.load()) f(warning, text.data(), text.size());
}

struct Warnings : c10::WarningHandler {
  void process(const c10::Warning& warning) override { pass(1, warning.msg()); }
};

}  // namespace

// Printing is the process's, warnings are each thread's.
extern "C" void deepsim_hear_scripts(Hear f) {
  static Warnings warnings;
  hear = f;
  torch::jit::setPrintHandler([](const std::string& text) { pass(0, text); });
  c10::WarningUtils::set_warning_handler(&warnings);
}
