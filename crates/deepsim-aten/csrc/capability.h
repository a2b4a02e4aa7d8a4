// Which instruction set our own kernels use.
#pragma once

namespace deepsim {

// In ascending order: each processor that has one has those before it.
enum class Capability : int { Default = 0, Avx2 = 1, Avx512 = 2, Avx512Bf16 = 3, Amx = 4 };

// The best of this processor, or what DEEPSIM_CPU_CAPABILITY says. Read once for each process.
// Throws where the variable holds no known word, or one that this processor cannot run.
Capability capability();

// The same without throwing: false where `capability` would throw.
bool capability_allows(Capability least);

// Whether the bf16 kernels are to run in plain C++ (DEEPSIM_CPU_CAPABILITY=plain).
bool plain_bf16();

}  // namespace deepsim
