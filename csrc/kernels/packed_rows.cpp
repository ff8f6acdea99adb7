#include "kernels/packed_rows.h"

#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int64_t block_columns = 64;  // bits of a word
constexpr int64_t line = 64;           // bytes of the cache

// Sums of a row that stay in registers: those of 64 rows of the other factor then stay in the L1 cache, too.
constexpr int64_t most_vectors = 8;
template <class T>
constexpr int64_t group_vectors = 28672 / (block_columns * int64_t(sizeof(T)) * Vec<T>::lanes) < most_vectors
                                      ? 28672 / (block_columns * int64_t(sizeof(T)) * Vec<T>::lanes)
                                      : most_vectors;

template <class T>
T* pack(uint64_t* bits, T* values, const T* end, const T* x, int64_t columns) {
  constexpr int64_t lanes = Vec<T>::lanes;
  Vec<T> finite = Vec<T>::zero();
  for (int64_t first = 0; first < columns; first += block_columns) {
    if (end - values < block_columns + lanes) return nullptr;
    uint64_t word = 0;
    const int64_t count = columns - first < block_columns ? columns - first : block_columns;
    for_lanes<T>(count, [&](int64_t i, auto n) {
      const Vec<T> v = load(x + first + i, n);
      finite = fma(v, Vec<T>::zero(), finite);
      const Mask<T> others = !(v == Vec<T>::zero());
      const unsigned some = bits_of(others);
      word |= uint64_t(some) << i;
      if (some != 0) values += compress_store(values, others, v);
    });
    bits[first / block_columns] = word;
  }
  return reduce_add(finite) == T(0) ? values : nullptr;
}

template <class T>
void gather(uint64_t* bits, const T** values, const uint64_t* const* records, int64_t rows, int64_t blocks,
            int64_t first, int64_t count) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint64_t* record = records[r];
    const T* at = reinterpret_cast<const T*>(record + blocks);
    for (int64_t i = 0; i < first; ++i) at += __builtin_popcountll(record[i]);
    values[r] = at;
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t word = record[first + i];
      bits[i * rows + r] = word;
      at += __builtin_popcountll(word);
    }
    // Loads that nothing waits for: products, whose loops end where nobody foresees, would wait for memory row by row.
    for (const char* p = reinterpret_cast<const char*>(values[r]); p < reinterpret_cast<const char*>(at); p += line) {
      T value;
      memcpy(&value, p, sizeof(value));
      __asm__ volatile("" : : "r"(&value), "m"(value));
    }
  }
}

template <class T, int Vectors>
void multiply_group(T* sums, const T* bias, PackedBlocks<T> x, const T** at, const T* weight, int64_t width,
                    int64_t blocks) {
  constexpr int64_t lanes = Vec<T>::lanes;
  for (int64_t r = 0; r < x.rows; ++r) at[r] = x.values[r];
  for (int64_t block = 0; block < blocks; ++block) {
    const T* rows = weight + block * block_columns * width;
    for (int64_t r = 0; r < x.rows; ++r) {
      uint64_t bits = x.bits[block * x.rows + r];
      if (bits == 0 && block > 0) continue;
      T* to = sums + r * width;
      Vec<T> sum[Vectors];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        sum[v] = block > 0         ? Vec<T>::load(to + v * lanes)
                 : bias != nullptr ? Vec<T>::load(bias + v * lanes)
                                   : Vec<T>::zero();
      }
      const T* value = at[r];
      while (bits != 0) {
        const T* from = in_register(rows + __builtin_ctzll(bits) * width);
        bits &= bits - 1;
        const Vec<T> factor(*value++);
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sum[v] = fma(factor, Vec<T>::load(from + v * lanes), sum[v]);
      }
      at[r] = value;
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sum[v].store(to + v * lanes);
    }
  }
}

// Column c of a block of 64 rows: tile[, tile_columns] has its values where `bits` say so.
template <class T, int Vectors>
void add_column(T* to, const T* tile, int64_t tile_columns, uint64_t bits, const T* dz, int64_t width,
                bool accumulate) {
  constexpr int64_t lanes = Vec<T>::lanes;
  Vec<T> sum[Vectors];
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) sum[v] = accumulate ? Vec<T>::load(to + v * lanes) : Vec<T>::zero();
  while (bits != 0) {
    const int64_t r = __builtin_ctzll(bits);
    bits &= bits - 1;
    const Vec<T> factor(tile[r * tile_columns]);
    const T* from = in_register(dz + r * width);
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sum[v] = fma(factor, Vec<T>::load(from + v * lanes), sum[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) sum[v].store(to + v * lanes);
}

template <class T, int Vectors>
void dweight_group(T* dweight, const T* tile, int64_t tile_columns, const uint64_t* columns_bits, const T* dz,
                   int64_t width, int64_t columns, bool accumulate) {
  for (int64_t c = 0; c < columns; ++c) {
    if (columns_bits[c] == 0 && accumulate) continue;
    add_column<T, Vectors>(dweight + c * width, tile + c, tile_columns, columns_bits[c], dz, width, accumulate);
  }
}

template <class T>
struct Groups {
  void (*multiply[most_vectors])(T*, const T*, PackedBlocks<T>, const T**, const T*, int64_t, int64_t);
  void (*dweight[most_vectors])(T*, const T*, int64_t, const uint64_t*, const T*, int64_t, int64_t, bool);
  constexpr Groups() : multiply(), dweight() { fill<most_vectors>(); }

 private:
  template <int V>
  constexpr void fill() {
    multiply[V - 1] = multiply_group<T, V>;
    dweight[V - 1] = dweight_group<T, V>;
    if constexpr (V > 1) fill<V - 1>();
  }
};

template <class T>
constexpr Groups<T> groups_of;

// Calls body(first, vectors) for nearly equal groups of a row's vectors.
template <class T, class Body>
PYNN_INLINE void for_groups(int64_t width, Body body) {
  const int64_t vectors = width / Vec<T>::lanes, groups = (vectors + group_vectors<T> - 1) / group_vectors<T>;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = vectors * g / groups;
    body(first * Vec<T>::lanes, vectors * (g + 1) / groups - first);
  }
}

template <class T>
void multiply(T* sums, const T* bias, PackedBlocks<T> x, const T** at, const T* weight, int64_t width, int64_t blocks) {
  for_groups<T>(width, [&](int64_t first, int64_t vectors) {
    groups_of<T>.multiply[vectors - 1](sums + first, bias != nullptr ? bias + first : nullptr, x, at, weight + first,
                                       width, blocks);
  });
}

// Bit c of word r becomes bit r of word c.
PYNN_INLINE void turn_bits(uint64_t* words) {
  uint64_t mask = 0x00000000ffffffffu;
  for (int distance = 32; distance != 0; distance >>= 1, mask ^= mask << distance) {
    for (int k = 0; k < 64; k = ((k | distance) + 1) & ~distance) {
      const uint64_t swapped = ((words[k] >> distance) ^ words[k | distance]) & mask;
      words[k] ^= swapped << distance;
      words[k | distance] ^= swapped;
    }
  }
}

template <class T>
void dweight(T* dweight, PackedBlocks<T> x, const T** at, const T* dz, int64_t width, int64_t columns,
             bool accumulate) {
  constexpr int64_t height = 64, lanes = Vec<T>::lanes;
  constexpr int64_t tile_columns = 256 / int64_t(sizeof(T));  // so that a tile and the rows of dz stay in the L1 cache
  alignas(64) T tile[height * tile_columns];
  for (int64_t r = 0; r < x.rows; ++r) at[r] = x.values[r];
  for (int64_t row = 0; row < x.rows; row += height) {
    const int64_t rows = x.rows - row < height ? x.rows - row : height;
    const bool adds = accumulate || row > 0;
    for (int64_t first = 0; first < columns; first += block_columns) {
      const uint64_t* bits = x.bits + first / block_columns * x.rows + row;
      uint64_t turned[height], any = 0;
      for (int64_t r = 0; r < height; ++r) {
        turned[r] = r < rows ? bits[r] : 0;
        any |= turned[r];
      }
      if (any == 0 && adds) continue;
      if (any != 0) turn_bits(turned);
      const int64_t end = columns - first < block_columns ? columns - first : block_columns;
      for (int64_t left = 0; left < end; left += tile_columns) {
        for (int64_t r = 0; r < rows && any != 0; ++r) {
          const T* value = at[row + r];
          for (int64_t c = 0; c < tile_columns; c += lanes) {
            value += expand_load(tile + r * tile_columns + c, value,
                                 static_cast<unsigned>(bits[r] >> (left + c)) & ((uint64_t(1) << lanes) - 1));
          }
          at[row + r] = value;
        }
        for_groups<T>(width, [&](int64_t group, int64_t vectors) {
          groups_of<T>.dweight[vectors - 1](dweight + (first + left) * width + group, tile, tile_columns, turned + left,
                                            dz + row * width + group, width,
                                            end - left < tile_columns ? end - left : tile_columns, adds);
        });
      }
    }
  }
}

template <class T>
void add(T* y, const T* a, const T* b, bool relu, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    Vec<T> sum = load(a + i, lanes);
    if (b != nullptr) sum = sum + load(b + i, lanes);
    if (relu) sum = select(sum < Vec<T>::zero(), Vec<T>::zero(), sum);
    store(y + i, sum, lanes);
  });
}

template <class T>
PackedRowsKernels<T> table() {
  return {pack<T>, gather<T>, multiply<T>, dweight<T>, add<T>};
}

}  // namespace

void register_packed_rows(KernelSet& set) {
  set.f32.packed_rows = table<float>();
  set.f64.packed_rows = table<double>();
}

}  // namespace pynn::PYNN_ISA
