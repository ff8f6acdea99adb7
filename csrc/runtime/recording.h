// A recorded step: the computations of every operation, to be run again on the same memory.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "runtime/threads.h"

namespace pynn {

using Computation = std::function<void()>;

class Recording {
 public:
  // Puts what `add` received since the last call at position `at`, in place of what was there; at == size() appends.
  void put(int64_t at) {
    if (at == size()) steps_.emplace_back();
    steps_[static_cast<size_t>(at)] = std::move(pending_);
    pending_.clear();
  }
  void add(Computation computation) { pending_.push_back(std::move(computation)); }
  void discard() { pending_.clear(); }
  bool is_pending() const { return !pending_.empty(); }

  // Runs steps begin … end - 1. What a computation throws ends the run. Returns how often the threads had to wait for
  // each other.
  int64_t run(int64_t begin, int64_t end) {
    const int64_t before = parallel_calls();
    for (position_ = begin; position_ < end; ++position_) {
      for (const Computation& computation : steps_[static_cast<size_t>(position_)]) computation();
    }
    return parallel_calls() - before;
  }
  int64_t position() const { return position_; }  // the step at which the latest run ended
  int64_t size() const { return static_cast<int64_t>(steps_.size()); }

 private:
  std::vector<std::vector<Computation>> steps_;
  std::vector<Computation> pending_;
  int64_t position_ = 0;
};

}  // namespace pynn
