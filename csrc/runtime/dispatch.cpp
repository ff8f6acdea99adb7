#include "runtime/dispatch.h"

#include <cstdlib>

namespace pynn {

#define PYNN_DECLARE(family) void register_##family(KernelSet&);
namespace baseline {
PYNN_FOR_EACH_FAMILY(PYNN_DECLARE)
}
#if defined(__x86_64__)
namespace avx2 {
PYNN_FOR_EACH_FAMILY(PYNN_DECLARE)
}
namespace avx512 {
PYNN_FOR_EACH_FAMILY(PYNN_DECLARE)
}
#if defined(PYNN_AMX)
namespace amx {
void register_split_gemm(KernelSet&);
void register_conv_tiles(KernelSet&);
}  // namespace amx
#endif
#elif defined(__aarch64__)
namespace neon {
PYNN_FOR_EACH_FAMILY(PYNN_DECLARE)
}
#endif
#undef PYNN_DECLARE

namespace {

KernelSet make_set(Isa isa) {
  KernelSet set{};
  switch (isa) {
#define PYNN_REGISTER(family) register_##family(set);
    case Isa::baseline: {
      using namespace baseline;
      PYNN_FOR_EACH_FAMILY(PYNN_REGISTER)
      break;
    }
#if defined(__x86_64__)
    case Isa::avx2: {
      using namespace avx2;
      PYNN_FOR_EACH_FAMILY(PYNN_REGISTER)
      break;
    }
    case Isa::avx512:
    case Isa::amx: {
      using namespace avx512;
      PYNN_FOR_EACH_FAMILY(PYNN_REGISTER)
#if defined(PYNN_AMX)
      if (isa == Isa::amx) {
        amx::register_split_gemm(set);
        amx::register_conv_tiles(set);
      }
#endif
      break;
    }
#elif defined(__aarch64__)
    case Isa::neon: {
      using namespace neon;
      PYNN_FOR_EACH_FAMILY(PYNN_REGISTER)
      break;
    }
#endif
#undef PYNN_REGISTER
    default: break;
  }
  return set;
}

// Each table is made on its first use: to make it runs code of its instruction set, which this processor may not have.
template <Isa isa>
const KernelSet& made_set() {
  static const KernelSet set = make_set(isa);
  return set;
}

struct Active {
  Isa isa;
  const KernelSet* set;
};

Active& active() {
  static Active chosen = [] {
    const char* forced = std::getenv("PYNN_ISA");
    const Isa isa = forced != nullptr && *forced != '\0' ? isa_from_name(forced) : usable_isas().back();
    return Active{isa, &kernel_set(isa)};
  }();
  return chosen;
}

}  // namespace

const KernelSet& kernel_set(Isa isa) {
  switch (isa) {
    case Isa::avx2: return made_set<Isa::avx2>();
    case Isa::avx512: return made_set<Isa::avx512>();
    case Isa::amx: return made_set<Isa::amx>();
    case Isa::neon: return made_set<Isa::neon>();
    default: return made_set<Isa::baseline>();
  }
}

Isa active_isa() { return active().isa; }

void set_active_isa(Isa isa) { active() = {isa, &kernel_set(isa)}; }

template <>
const KernelTable<float>& kernels<float>() {
  return active().set->f32;
}

template <>
const KernelTable<double>& kernels<double>() {
  return active().set->f64;
}

}  // namespace pynn
