#include "ops/chain.h"

#include <algorithm>
#include <utility>

#include "ops/elementwise.h"
#include "runtime/arena.h"

namespace pynn::ops {

constexpr int64_t kSlot = Chain::kBlock + 256;  // bytes; slots begin at different places within their page

Chain::Chain(std::vector<Link> links, const std::vector<char*>& scratch, int64_t n, int64_t width)
    : links_(std::move(links)), n_(n), width_(width) {
  for (const Link& link : links_) arrays_.insert(arrays_.end(), link.arrays.begin(), link.arrays.end());
  slots_.assign(arrays_.size(), 0);
  // A slot is free again behind the last operation that reads it.
  std::vector<int64_t> free;
  size_t end = 0;
  for (const Link& link : links_) {
    const size_t begin = end;
    end += link.arrays.size();
    for (size_t i = begin; i < end; ++i) {
      if (arrays_[i] == nullptr) continue;  // an earlier operation's output, which has its slot
      if (std::find(scratch.begin(), scratch.end(), arrays_[i]) == scratch.end()) continue;
      if (free.empty()) free.push_back(slot_count_++);
      const int64_t slot = free.back();
      free.pop_back();
      char* const array = arrays_[i];
      for (size_t j = i; j < arrays_.size(); ++j) {
        if (arrays_[j] != array) continue;
        arrays_[j] = nullptr;
        slots_[j] = slot;
      }
    }
    for (size_t i = begin; i < end; ++i) {
      const auto is_same = [&](size_t j) { return arrays_[j] == nullptr && slots_[j] == slots_[i]; };
      bool is_last = arrays_[i] == nullptr;
      for (size_t j = i + 1; is_last && j < arrays_.size(); ++j) is_last = !is_same(j);
      if (is_last) free.push_back(slots_[i]);
    }
  }
}

void Chain::run() const {
  for_elements(n_, [&](int64_t begin, int64_t end) {
    char* const room = arena::scratch<char>(arena::Slot::tile, slot_count_ * kSlot);
    const int64_t block = kBlock / width_;
    char* at[kMostArrays];
    for (int64_t first = begin; first < end; first += block) {
      for (size_t i = 0; i < arrays_.size(); ++i) {
        at[i] = arrays_[i] == nullptr ? room + slots_[i] * kSlot : arrays_[i] + first * width_;
      }
      char* const* next = at;
      for (const Link& link : links_) {
        link.compute(next, std::min(block, end - first));
        next += link.arrays.size();
      }
    }
  });
}

}  // namespace pynn::ops
