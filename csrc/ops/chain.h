// A run of elementwise operations on arrays of one size, block by block: what one of them leaves in the L1 cache,
// the next finds there.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace pynn::ops {

// One operation: compute(at, n) works on n elements at these addresses, in the order of `arrays`.
struct Link {
  std::function<void(char* const* at, int64_t n)> compute;
  std::vector<char*> arrays;  // the output first
};

class Chain {
 public:
  // Operations on arrays of n elements of `width` bytes, at most kMostArrays together. Those that begin at an address
  // of `scratch`, each the output of an operation before those that read it, are never touched: threads hold the blocks
  // at hand.
  Chain(std::vector<Link> links, const std::vector<char*>& scratch, int64_t n, int64_t width);

  void run() const;

  static constexpr int64_t kMostArrays = 64;  // of all operations together
  static constexpr int64_t kBlock = 8192;     // bytes

 private:
  std::vector<Link> links_;
  std::vector<char*> arrays_;   // of all links, one after the other; null where a thread has scratch for it,
  std::vector<int64_t> slots_;  // in this slot
  int64_t n_, width_, slot_count_ = 0;
};

}  // namespace pynn::ops
