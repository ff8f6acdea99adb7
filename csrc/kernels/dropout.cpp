#include "kernels/dropout.h"

#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int kBlocks = 32;  // computed side by side, in arrays that the compiler turns into vectors

// Philox 4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
void philox(uint32_t (&words)[4][kBlocks], uint64_t seed, uint64_t first_block) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int b = 0; b < kBlocks; ++b) {
    const uint64_t counter = first_block + static_cast<uint64_t>(b);
    words[0][b] = static_cast<uint32_t>(counter);
    words[1][b] = static_cast<uint32_t>(counter >> 32);
    words[2][b] = words[3][b] = 0;
  }
  for (int round = 0; round < 10; ++round) {
    for (int b = 0; b < kBlocks; ++b) {
      const uint64_t product0 = uint64_t(0xD2511F53) * words[0][b], product1 = uint64_t(0xCD9E8D57) * words[2][b];
      const uint32_t w1 = words[1][b], w3 = words[3][b];
      words[0][b] = static_cast<uint32_t>(product1 >> 32) ^ w1 ^ key0;
      words[1][b] = static_cast<uint32_t>(product1);
      words[2][b] = static_cast<uint32_t>(product0 >> 32) ^ w3 ^ key1;
      words[3][b] = static_cast<uint32_t>(product0);
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

template <class T>
void dropout(T* y, const T* x, uint32_t threshold, T scale, uint64_t seed, uint64_t first_block, int64_t n) {
  uint32_t words[4][kBlocks];
  for (int64_t i = 0; i < n; i += 4 * kBlocks) {
    philox(words, seed, first_block + static_cast<uint64_t>(i / 4));
    const int64_t here = n - i < 4 * kBlocks ? n - i : 4 * kBlocks;
    for (int64_t e = 0; e < here; ++e) y[i + e] = (words[e % 4][e / 4] >> 8) >= threshold ? x[i + e] * scale : T(0);
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
