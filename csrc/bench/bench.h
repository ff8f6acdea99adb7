// What the benchmarks share: arrays, the comparison with the naive twin, and the registration of a case for every
// instruction set and number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/arena.h"

namespace pynn::bench {

// An aligned array whose copies share the elements.
template <class T>
class Array {
 public:
  explicit Array(int64_t size) : buffer_(std::make_shared<arena::Buffer<T>>(size)), size_(size) {}
  T* get() const { return buffer_->get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return get()[i]; }

 private:
  std::shared_ptr<arena::Buffer<T>> buffer_;
  int64_t size_;
};

Array<float> random_array(int64_t size, float low = -1, float high = 1);
Array<float> constant_array(int64_t size, float value);

// Integers in 0..below-1, always the same ones: samples of what is too long to check whole.
std::vector<int64_t> random_indices(int64_t count, int64_t below);

// Throws std::runtime_error unless each |got - want| is at most what `terms` rounded additions around `magnitude`
// explain.
void expect_close(const float* got, const double* want, int64_t size, double terms, double magnitude = 1);

// Throws std::runtime_error at the first element that differs.
template <class T>
void expect_equal(const T* got, const T* want, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    if (!(got[i] == want[i])) throw std::runtime_error("wrong result: element " + std::to_string(i));
  }
}

// What a call costs at least; the unit it is judged by.
struct Cost {
  double flops = 0;   // 2 per multiply-add: GFLOP/s, and % of peak_flops
  int64_t bytes = 0;  // read and written: GB/s, and % of copy_rate of as many bytes
};

// A case ready to run: its arrays live as long as the functions.
struct Work {
  std::function<void()> run;    // what is timed
  std::function<void()> check;  // after one run: throws std::runtime_error if the result is not the naive twin's
};

// Registers `name/<instruction set>/<threads>` for each usable instruction set, with one thread and with all. `make` is
// called when the case runs.
void add_case(const std::string& name, Cost cost, std::function<Work()> make);

// One for each file of cases.
void add_conv_cases();
void add_conv_pool_cases();
void add_elementwise_cases();
void add_gemm_cases();
void add_loss_cases();
void add_optim_cases();
void add_pool_cases();

}  // namespace pynn::bench
