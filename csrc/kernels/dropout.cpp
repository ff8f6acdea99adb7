#include "kernels/dropout.h"

#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int kBlocks = 64;  // generated at a time, so that the loop over them vectorises

// words[4 * b + j] = word j of block first_block + b of Philox 4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011.
void philox(uint32_t* PYNN_RESTRICT words, uint64_t seed, uint64_t first_block) {
  for (int b = 0; b < kBlocks; ++b) {
    const uint64_t counter = first_block + static_cast<uint64_t>(b);
    uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = 0, c3 = 0;
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t product0 = uint64_t(0xD2511F53) * c0, product1 = uint64_t(0xCD9E8D57) * c2;
      c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
      c1 = static_cast<uint32_t>(product1);
      c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
      c3 = static_cast<uint32_t>(product0);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    words[4 * b] = c0;
    words[4 * b + 1] = c1;
    words[4 * b + 2] = c2;
    words[4 * b + 3] = c3;
  }
}

template <class T>
void dropout(T* PYNN_RESTRICT y, const T* PYNN_RESTRICT x, uint32_t threshold, T scale, uint64_t seed,
             uint64_t first_block, int64_t n) {
  constexpr int64_t step = 4 * kBlocks;
  for (int64_t i = 0; i < n; i += step) {
    uint32_t words[step];
    philox(words, seed, first_block + static_cast<uint64_t>(i / 4));
    const int64_t here = n - i < step ? n - i : step;
    for (int64_t e = 0; e < here; ++e) {
      const T scaled = x[i + e] * scale;
      y[i + e] = words[e] >> 8 >= threshold ? scaled : T(0);
    }
  }
}

template <class T>
DropoutKernels<T> table() {
  return {dropout<T>};
}

}  // namespace

void register_dropout(KernelSet& set) {
  set.f32.dropout = table<float>();
  set.f64.dropout = table<double>();
}

}  // namespace pynn::PYNN_ISA
