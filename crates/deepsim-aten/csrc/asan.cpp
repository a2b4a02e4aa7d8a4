// Compiled under AddressSanitizer only: a fault made on purpose, so that its silence elsewhere means something.

#include <cstdlib>

extern "C" int deepsim_asan_overstep(int length) {
  volatile char* bytes = static_cast<volatile char*>(std::malloc(length));
  for (int i = 0; i < length; i++) bytes[i] = 1;
  int behind = bytes[length];
  std::free(const_cast<char*>(bytes));
  return behind;
}
