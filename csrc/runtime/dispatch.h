// Which kernel table runs: chosen once, by the processor or by PYNN_ISA.
#pragma once

#include "kernels/table.h"
#include "runtime/cpu.h"

namespace pynn {

// The kernels of one instruction set, for tests and benchmarks that compare them.
const KernelSet& kernel_set(Isa isa);

Isa active_isa();
void set_active_isa(Isa isa);

// The table that ops call.
template <class T>
const KernelTable<T>& kernels();

}  // namespace pynn
