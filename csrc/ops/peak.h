// What this machine can do at most, with the threads and the instruction set in use, in float32.
#pragma once

#include <cstdint>

namespace pynn::ops {

// Operations per second of threads that only multiply and add. Takes about 50 ms.
double peak_flops();

// Bytes per second, read and written together, of threads that copy one array to another, the two having `bytes`
// together: the rate of the cache or memory that a kernel on as many bytes works from. Takes about 100 ms.
double copy_rate(int64_t bytes);

}  // namespace pynn::ops
