// How often each kernel path was taken: pynn.debug.kernel_counts().
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>

namespace pynn {

// A named counter; define one as a static at the place that takes the path:
//   static Counter taken("conv2d.pointwise");
//   taken.add();
class Counter {
 public:
  explicit Counter(const char* name);
  void add() { count_.fetch_add(1, std::memory_order_relaxed); }

 private:
  friend std::map<std::string, int64_t> kernel_counts();
  friend void reset_kernel_counts();
  const char* name_;
  std::atomic<int64_t> count_{0};
  Counter* next_;
};

std::map<std::string, int64_t> kernel_counts();  // of the paths taken since the last reset
void reset_kernel_counts();

}  // namespace pynn
