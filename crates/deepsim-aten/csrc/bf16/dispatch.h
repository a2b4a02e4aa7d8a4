// Which of the compiled codes runs, and what is remembered of weights.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <vector>

#include "function.h"
#include "plan.h"
#include "rows.h"
#include "table.h"

// A table of the code that runs; null where there is none.
#if defined(DEEPSIM_AMX)
#define DEEPSIM_AMX_CODE(name) name##_amx()
#else
#define DEEPSIM_AMX_CODE(name) nullptr
#endif
#if defined(DEEPSIM_AVX512_BF16)
#define DEEPSIM_AVX512_CODE(name) name##_avx512()
#else
#define DEEPSIM_AVX512_CODE(name) nullptr
#endif
#define DEEPSIM_CODE(name)                                            \
  table_of(code(), DEEPSIM_AMX_CODE(name), DEEPSIM_AVX512_CODE(name), \
           name##_plain())

namespace deepsim::bf16 {

// `amx` and `avx512` may be null literals.
template <class Amx, class Avx512, class Table>
const Table* table_of(Code code, Amx amx, Avx512 avx512, const Table* plain) {
  switch (code) {
    case Code::Amx:
      return amx;
    case Code::Avx512:
      return avx512;
    case Code::Plain:
      return plain;
    case Code::None:
      break;
  }
  return nullptr;
}

// Kernels of rows and their products; null where there is no code.
const RowKernels* row_kernels();

using Packed = std::vector<Half>;

// The text of errors where `code` is None.
constexpr const char* NO_CODE =
    "there is no bf16 code here: it takes AMX or AVX-512 with bf16, in the processor, in the system "
    "and in DEEPSIM_CPU_CAPABILITY";

// What weights are packed for.
enum class Use : int { Down, Up, Rows };

// What `make` makes of a weight, remembered (`remembered.h`).
std::shared_ptr<const Packed> packed_once(const at::Tensor& weight, Use use,
                                          const Geometry& geometry,
                                          const std::function<Packed()>& make);

}  // namespace deepsim::bf16
