#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {

void register_reduction(KernelSet&) {}

}  // namespace pynn::PYNN_ISA
