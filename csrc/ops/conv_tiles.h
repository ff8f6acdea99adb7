// Convolution in tiles of bfloat16 parts (see kernels/conv_tiles.h), which needs a processor that multiplies those.
#pragma once

#include "ops/conv_correlate.h"

namespace pynn::ops {

// Whether `correlate_tiles` can do the job: neighbouring taps, one group.
bool can_use_conv_tiles(const Job& job);

// Whether it can, and takes less time than vectors: by the shape alone. Rounding differs from theirs.
bool conv_tiles_pay(const Job& job);

// The same where Winograd's filtering is the other way.
bool conv_tiles_beat_winograd(const Job& job);

// What `correlate` computes.
void correlate_tiles(const CorrelateOut<float>& out, const float* x, const float* mask, const float* weight,
                     const Job& job);

}  // namespace pynn::ops
