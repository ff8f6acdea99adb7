// What the machine can do at most: ops/peak.h for any instruction set and number of threads, measured once.
#pragma once

#include <cstdint>

#include "runtime/cpu.h"

namespace pynn::bench {

double peak_flops(Isa isa, int threads);                // operations per second
double copy_rate(Isa isa, int threads, int64_t bytes);  // bytes per second, for a power of two of at least `bytes`

}  // namespace pynn::bench
