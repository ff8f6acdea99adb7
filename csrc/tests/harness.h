// What the kernel tests share: buffers with guard bytes, random numbers from a printed seed, sizes, and comparison.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::test {

// Around the lane counts of every instruction set.
inline const std::vector<int64_t> kSizes = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 257};

// PYNN_TEST_SEED repeats a run.
uint64_t seed();
std::mt19937_64& generator();

// An array between guard bytes, which the destructor checks: a kernel that writes outside fails the test.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count, T fill = T(0))
      : count_(count), bytes_(kGuard + count * sizeof(T) + kGuard, kPattern) {
    for (int64_t i = 0; i < count; ++i) (*this)[i] = fill;
  }
  Guarded(const Guarded&) = default;
  ~Guarded() {
    bool intact = true;
    for (size_t i = 0; i < kGuard; ++i) {
      intact = intact && bytes_[i] == kPattern && bytes_[bytes_.size() - 1 - i] == kPattern;
    }
    CHECK_MESSAGE(intact, "a kernel wrote outside its array of " << count_);
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + kGuard); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + kGuard); }
  int64_t size() const { return count_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr unsigned char kPattern = 0xA5;
  int64_t count_;
  std::vector<unsigned char> bytes_;
};

// A copy of an array that ends where memory without access begins: who reads behind it dies.
template <class T>
class BeforeNoAccess {
 public:
  explicit BeforeNoAccess(const Guarded<T>& values) {
    const size_t bytes = static_cast<size_t>(values.size()) * sizeof(T), page = static_cast<size_t>(getpagesize());
    const size_t usable = (bytes + page - 1) / page * page;
    void* memory = mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    memory_ = static_cast<char*>(memory);
    size_ = usable + page;
    REQUIRE(mprotect(memory_ + usable, page, PROT_NONE) == 0);
    data_ = reinterpret_cast<T*>(memory_ + usable - bytes);
    std::memcpy(data_, values.data(), bytes);
  }
  BeforeNoAccess(const BeforeNoAccess&) = delete;
  ~BeforeNoAccess() { munmap(memory_, size_); }
  const T* data() const { return data_; }

 private:
  char* memory_ = nullptr;
  size_t size_ = 0;
  T* data_ = nullptr;
};

template <class T>
Guarded<T> random_array(int64_t count, double low = -1, double high = 1) {
  std::uniform_real_distribution<double> uniform(low, high);
  Guarded<T> array(count);
  for (int64_t i = 0; i < count; ++i) array[i] = static_cast<T>(uniform(generator()));
  return array;
}

// [cols, rows] of a[rows, cols]
template <class T>
Guarded<T> transposed(const Guarded<T>& a, int64_t rows, int64_t cols) {
  Guarded<T> b(a.size());
  for (int64_t i = 0; i < a.size(); ++i) b[i % cols * rows + i / cols] = a[i];
  return b;
}

// The difference that `terms` rounded additions of products around `magnitude` can make, with a margin of 4.
template <class T>
double rounding(double terms, double magnitude = 1) {
  return 4 * terms * magnitude * std::numeric_limits<T>::epsilon();
}

// Largest |got - want|; NaN must meet NaN and infinity the same infinity.
template <class T, class U>
void check_close(const Guarded<T>& got, const Guarded<U>& want, double tolerance, const std::string& what) {
  REQUIRE(got.size() == want.size());
  for (int64_t i = 0; i < got.size(); ++i) {
    const double a = static_cast<double>(got[i]), b = static_cast<double>(want[i]);
    const bool same = (std::isnan(a) && std::isnan(b)) || a == b || std::abs(a - b) <= tolerance;
    if (!same) {
      CHECK_MESSAGE(same, what << ": element " << i << " of " << got.size() << " is " << a << ", expected " << b
                               << " within " << tolerance << " (" << std::string(isa_name(active_isa())) << ", seed "
                               << seed() << ")");
      return;
    }
  }
}

template <class T>
const char* type_name() {
  return sizeof(T) == 4 ? "float32" : "float64";
}

// Another number of threads until the end of the scope.
struct Threads {
  int before = num_threads();
  explicit Threads(int n) { set_num_threads(n); }
  Threads(const Threads&) = delete;
  ~Threads() { set_num_threads(before); }
};

// Products by blocks of vectors until the end of the scope, for who compares bits with theirs: tiles add in another
// order.
struct VectorBlocks {
  Isa before = active_isa();
  VectorBlocks() {
    if (before == Isa::amx) set_active_isa(Isa::avx512);
  }
  VectorBlocks(const VectorBlocks&) = delete;
  ~VectorBlocks() { set_active_isa(before); }
};

}  // namespace pynn::test
