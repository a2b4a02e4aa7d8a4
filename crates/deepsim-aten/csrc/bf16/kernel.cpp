// Compiled once for each instruction set (DEEPSIM_ISA names the table that comes out). Its parts are
// headers that only this file includes.
#include "kernel.h"

#include "correlation.h"
#include "gradient.h"
#include "packing.h"

namespace deepsim::bf16 {

const Kernels* DEEPSIM_TABLE(kernels)() {
  static const Kernels table{pack, correlate, pack_weights, gradient, work, add_rows};
  return &table;
}

}  // namespace deepsim::bf16
