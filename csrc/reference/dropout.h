// The naive twin of dropout: one block of the generator at a time, as its authors write it.
#pragma once

#include <array>
#include <cstdint>

namespace pynn::reference {

// Philox 4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(0xD2511F53) * counter[0], b = uint64_t(0xCD9E8D57) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key[1],
               uint32_t(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

template <class T>
void dropout(T* y, const T* x, double p, uint64_t seed, uint64_t offset, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t block = offset + uint64_t(i / 4);
    const auto words = philox({uint32_t(block), uint32_t(block >> 32), 0, 0}, {uint32_t(seed), uint32_t(seed >> 32)});
    const double uniform = (words[size_t(i % 4)] >> 8) * 0x1p-24;
    y[i] = uniform >= p ? x[i] * T(1 / (1 - p)) : T(0);
  }
}

}  // namespace pynn::reference
