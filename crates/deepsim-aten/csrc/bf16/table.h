// Names of what is compiled once for each instruction set: `kernels` becomes kernels_amx where
// DEEPSIM_ISA is amx.
#pragma once

namespace deepsim::bf16 {

// Whether this build has code for the matrix unit, and the processor and system let us use it.
bool amx_usable();

}  // namespace deepsim::bf16

#define DEEPSIM_JOIN(name, isa) name##_##isa
#define DEEPSIM_NAME(name, isa) DEEPSIM_JOIN(name, isa)
#define DEEPSIM_TABLE(name) DEEPSIM_NAME(name, DEEPSIM_ISA)
