// Filters of a convolution that each thread prepares for itself, which takes less than to fetch them from another core.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/arena.h"

namespace pynn::ops {

// One for each call.
class OwnFilters {
 public:
  explicit OwnFilters(arena::Slot slot) : slot_(slot) {
    static std::atomic<uint64_t> calls{0};
    call_ = calls.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  // Those of the outputs from `first` on, `size` elements in scratch of this thread: prepare(filters) makes them,
  // unless they are what this thread has prepared last.
  template <class T, class Prepare>
  const T* get(int64_t first, int64_t size, const Prepare& prepare) const {
    static thread_local struct {
      uint64_t call;
      int64_t first;
      T* filters;
    } last{};
    if (last.call != call_ || last.first != first) {
      last.filters = arena::scratch<T>(slot_, size);
      prepare(last.filters);
      last.call = call_;
      last.first = first;
    }
    return last.filters;
  }

 private:
  arena::Slot slot_;
  uint64_t call_;
};

}  // namespace pynn::ops
