// Names of what is compiled once for each instruction set: `kernels` becomes kernels_amx where
// DEEPSIM_ISA is amx, and kernels_avx512 where it is avx512.
#pragma once

namespace deepsim::bf16 {

// Whether this build has code for the matrix unit, and the processor and system let us use it.
bool amx_usable();
// The same for AVX-512 with its bf16 instruction; true wherever `amx_usable` is.
bool avx512_bf16_usable();
// Whether the processor carries AVX-512's bf16 instruction out as often as an fp32 one, or nearly.
bool avx512_bf16_fast();

}  // namespace deepsim::bf16

#define DEEPSIM_JOIN(name, isa) name##_##isa
#define DEEPSIM_NAME(name, isa) DEEPSIM_JOIN(name, isa)
#define DEEPSIM_TABLE(name) DEEPSIM_NAME(name, DEEPSIM_ISA)
