// Chains of elementwise operations beside the same kernels on whole arrays: equal bits.
#include <cstring>
#include <limits>
#include <vector>

#include "harness.h"
#include "ops/chain.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

using namespace pynn;
using pynn::test::Guarded;

namespace {

template <class T>
char* address(T* data) {
  return static_cast<char*>(static_cast<void*>(data));
}
template <class T>
T* elements(char* address) {
  return static_cast<T*>(static_cast<void*>(address));
}

template <class T>
ops::Link link(typename ElementwiseKernels<T>::Unary kernel, T* y, const T* x) {
  return {[=](char* const* at, int64_t n) { kernel(elements<T>(at[0]), elements<T>(at[1]), n); },
          {address(y), address(const_cast<T*>(x))}};
}
template <class T>
ops::Link link(typename BroadcastKernels<T>::Binary kernel, T* y, const T* a, const T* b) {
  return {[=](char* const* at, int64_t n) {
            kernel(elements<T>(at[0]), {elements<T>(at[1]), 0, 1}, {elements<T>(at[2]), 0, 1}, 1, n);
          },
          {address(y), address(const_cast<T*>(a)), address(const_cast<T*>(b))}};
}

}  // namespace

TEST_CASE_TEMPLATE("chain: same bits as whole arrays, whose scratch is not touched", T, float, double) {
  const int before = num_threads();
  const auto& unary = kernels<T>().elementwise;
  const auto& binary = kernels<T>().broadcast;
  for (int threads : {1, 2, 3}) {
    set_num_threads(threads);
    for (int64_t n : {1, 7, 1024, 2048, 2049, 40001, 100000}) {
      CAPTURE(threads);
      CAPTURE(n);
      const size_t size = static_cast<size_t>(n);
      std::vector<T> x(size), other(size);
      for (size_t i = 0; i < size; ++i) {
        x[i] = static_cast<T>(i % 613) / T(100) - T(3);
        other[i] = static_cast<T>(i % 37) - T(18);
      }
      if (n > 7) x[5] = std::numeric_limits<T>::quiet_NaN();
      // y = tanh(x) * other + x * x, z = exp(tanh(x)): tanh(x) and z are kept
      std::vector<T> a(size), b(size), c(size), y(size), z(size);
      unary.tanh(a.data(), x.data(), n);
      binary.mul(b.data(), {a.data(), 0, 1}, {other.data(), 0, 1}, 1, n);
      binary.mul(c.data(), {x.data(), 0, 1}, {x.data(), 0, 1}, 1, n);
      binary.add(y.data(), {b.data(), 0, 1}, {c.data(), 0, 1}, 1, n);
      unary.exp(z.data(), a.data(), n);

      std::vector<T> a2(size), y2(size), z2(size);
      const Guarded<T> mark(n, T(42));
      Guarded<T> none1 = mark, none2 = mark;
      std::vector<ops::Link> links;
      links.push_back(link<T>(unary.tanh, a2.data(), x.data()));
      links.push_back(link<T>(binary.mul, none1.data(), a2.data(), other.data()));
      links.push_back(link<T>(binary.mul, none2.data(), x.data(), x.data()));
      links.push_back(link<T>(binary.add, y2.data(), none1.data(), none2.data()));
      links.push_back(link<T>(unary.exp, z2.data(), a2.data()));
      ops::Chain(links, {address(none1.data()), address(none2.data())}, n, int64_t{sizeof(T)}).run();
      const size_t bytes = size * sizeof(T);
      CHECK(std::memcmp(a.data(), a2.data(), bytes) == 0);
      CHECK(std::memcmp(y.data(), y2.data(), bytes) == 0);
      CHECK(std::memcmp(z.data(), z2.data(), bytes) == 0);
      CHECK(std::memcmp(mark.data(), none1.data(), bytes) == 0);
      CHECK(std::memcmp(mark.data(), none2.data(), bytes) == 0);
    }
  }
  set_num_threads(before);
}
