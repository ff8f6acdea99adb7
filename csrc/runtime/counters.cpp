#include "runtime/counters.h"

namespace pynn {
namespace {
std::atomic<Counter*> first{nullptr};
}

Counter::Counter(const char* name) : name_(name), next_(first.load()) {
  while (!first.compare_exchange_weak(next_, this)) {
  }
}

std::map<std::string, int64_t> kernel_counts() {
  std::map<std::string, int64_t> counts;
  for (Counter* c = first.load(); c != nullptr; c = c->next_) {
    const int64_t count = c->count_.load(std::memory_order_relaxed);
    if (count > 0) counts[c->name_] += count;
  }
  return counts;
}

void reset_kernel_counts() {
  for (Counter* c = first.load(); c != nullptr; c = c->next_) c->count_.store(0, std::memory_order_relaxed);
}

}  // namespace pynn
