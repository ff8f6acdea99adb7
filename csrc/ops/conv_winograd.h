// Convolution of 3 x 3 without stride and dilation by Winograd's minimal filtering (see kernels/winograd.h).
#pragma once

#include "ops/conv_correlate.h"

namespace pynn::ops {

// Whether the job is such a convolution, and of enough channels, outputs and tiles that it takes less time.
template <class T>
bool winograd_pays(const Job& job);

// What `correlate` computes.
template <class T>
void correlate_winograd(const CorrelateOut<T>& out, const T* x, const T* mask, const T* weight, const Job& job);

}  // namespace pynn::ops
