// What this processor and operating system can run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pynn {

enum class Isa { baseline, avx2, avx512, amx, neon };

const char* isa_name(Isa isa);

// The instruction sets that were compiled in and that processor and operating system support, best last.
const std::vector<Isa>& usable_isas();

// The set whose name this is; throws std::invalid_argument that lists the usable ones.
Isa isa_from_name(const std::string& name);

// Cores this process may use: the smaller of its affinity mask and its cgroup quota, at least 1.
int usable_cores();

// Bytes of a core's L2 cache; 1 MB where the system does not say.
int64_t l2_cache_bytes();

}  // namespace pynn
