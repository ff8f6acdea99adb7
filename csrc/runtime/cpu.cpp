#include "runtime/cpu.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pynn {
namespace {

#if defined(__x86_64__)
struct CpuidRegisters {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidRegisters cpuid(unsigned leaf, unsigned subleaf) {
  CpuidRegisters r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// The register state that the operating system saves on a context switch; without it the instructions fault.
uint64_t xcr0() {
  const bool osxsave = cpuid(1, 0).ecx & (1u << 27);
  if (!osxsave) return 0;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t(high) << 32) | low;
}

bool has_avx2() {
  constexpr uint64_t ymm_state = 0x6;
  const CpuidRegisters leaf1 = cpuid(1, 0), leaf7 = cpuid(7, 0);
  const bool fma = leaf1.ecx & (1u << 12), avx = leaf1.ecx & (1u << 28), avx2 = leaf7.ebx & (1u << 5);
  return fma && avx && avx2 && (xcr0() & ymm_state) == ymm_state;
}

bool has_avx512() {
  constexpr uint64_t zmm_state = 0xe6;
  const unsigned ebx = cpuid(7, 0).ebx;
  const bool f = ebx & (1u << 16), dq = ebx & (1u << 17), bw = ebx & (1u << 30), vl = ebx & (1u << 31);
  return has_avx2() && f && dq && bw && vl && (xcr0() & zmm_state) == zmm_state;
}

// Linux hands out the tile registers on request, once for all threads of the process.
bool has_amx() {
#if defined(PYNN_AMX)
  constexpr uint64_t tile_state = 0x60000;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl
  const unsigned edx = cpuid(7, 0).edx;
  const bool bf16 = edx & (1u << 22), tile = edx & (1u << 24);
  return has_avx512() && bf16 && tile && (xcr0() & tile_state) == tile_state &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// The processors that a control group lets us use, or a large number where there is no limit.
double cgroup_quota() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) return std::stod(quota) / period;
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double allowed = 0;
  if (v1_quota >> allowed && v1_period >> period && allowed > 0 && period > 0) return allowed / period;
  return 1e9;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::baseline: return "baseline";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::amx: return "amx";
    case Isa::neon: return "neon";
  }
  return "unknown";
}

const std::vector<Isa>& usable_isas() {
  static const std::vector<Isa> usable = [] {
    std::vector<Isa> isas = {Isa::baseline};
#if defined(__x86_64__)
    if (has_avx2()) isas.push_back(Isa::avx2);
    if (has_avx512()) isas.push_back(Isa::avx512);
    if (has_amx()) isas.push_back(Isa::amx);
#elif defined(__aarch64__)
    isas.push_back(Isa::neon);
#endif
    return isas;
  }();
  return usable;
}

Isa isa_from_name(const std::string& name) {
  std::string usable;
  for (const Isa isa : usable_isas()) {
    if (name == isa_name(isa)) return isa;
    usable += (usable.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  throw std::invalid_argument("PYNN_ISA: \"" + name + "\" is not an instruction set of this machine; it has " + usable);
}

int usable_cores() {
  int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
  cpu_set_t affinity;
  if (sched_getaffinity(0, sizeof affinity, &affinity) == 0) cores = CPU_COUNT(&affinity);
#endif
  return std::max(1, std::min(cores, static_cast<int>(std::ceil(std::min(cgroup_quota(), 4096.0)))));
}

int64_t l2_cache_bytes() {
  static const int64_t bytes = [] {
    int64_t said = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    said = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    constexpr int64_t megabyte = int64_t(1) << 20;
    return said <= 0 ? megabyte : std::clamp(said, megabyte / 4, 4 * megabyte);
  }();
  return bytes;
}

}  // namespace pynn
