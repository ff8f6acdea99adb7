// Operations on each element by itself: run on ranges, or kept as links of a chain.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "bindings/array.h"
#include "ops/chain.h"
#include "ops/elementwise.h"

namespace pynn::bindings {

// The elementwise operations that a thread records as a chain.
struct Links {
  std::vector<ops::Link> links;
  int64_t n = 0, width = 0;  // of all arrays: elements, and bytes of one
};

// Launches compute(at, n) on ranges of arrays of n elements, the output first: at[k] is where the range begins in
// arrays[k].
template <class T, size_t K, class Compute>
void launch_elements(const char* op, int64_t n, const std::array<T*, K>& arrays, const Compute& compute) {
  Links* const chain = recorder() == nullptr ? nullptr : recorder()->chain;
  if (chain == nullptr) {
    launch([=] {
      ops::for_elements(n, [&](int64_t begin, int64_t end) {
        std::array<T*, K> at;
        for (size_t k = 0; k < K; ++k) at[k] = arrays[k] + begin;
        compute(at, end - begin);
      });
    });
    return;
  }
  if (!chain->links.empty() && (chain->n != n || chain->width != int64_t{sizeof(T)})) {
    throw_value(op, "arrays of " + std::to_string(n) + " elements in a chain of others");
  }
  chain->n = n;
  chain->width = sizeof(T);
  ops::Link link;
  link.compute = [compute](char* const* addresses, int64_t count) {
    std::array<T*, K> at;
    for (size_t k = 0; k < K; ++k) at[k] = static_cast<T*>(static_cast<void*>(addresses[k]));
    compute(at, count);
  };
  for (T* array : arrays) link.arrays.push_back(static_cast<char*>(static_cast<void*>(array)));
  chain->links.push_back(std::move(link));
}

}  // namespace pynn::bindings
