// What the machine can do at most: the loops are compiled once per instruction set, under the rules of csrc/kernels.
#pragma once

#include <cstdint>

#include "runtime/cpu.h"

namespace pynn::bench {

struct PeakLoops {
  // Runs `rounds` rounds of independent multiply-adds in registers; returns the operations (2 per multiply-add and
  // lane). `sink` makes the results count.
  int64_t (*multiply_add)(float* sink, int64_t rounds);

  void (*copy)(float* y, const float* x, int64_t size);
};

const PeakLoops& peak_loops(Isa isa);

// Operations per second of so many threads that only multiply and add, in float32.
double peak_flops(Isa isa, int threads);

// Bytes per second, read and written together, of so many threads that copy one array to another, the two having
// `bytes` together: the rate of the cache or memory that a kernel on as many bytes works from.
double copy_rate(Isa isa, int threads, int64_t bytes);

}  // namespace pynn::bench
