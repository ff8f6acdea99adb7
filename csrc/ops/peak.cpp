#include "ops/peak.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int kTries = 50;                     // the best one counts: others may use the machine
constexpr int64_t kRounds = 200000;            // of multiply_add: about 1 ms
constexpr int64_t kCopied = int64_t(1) << 24;  // bytes that a try copies at least
constexpr int64_t kLine = 16;                  // floats in a cache line

// The shortest time that run() takes, in seconds.
template <class Run>
double best_time(Run run) {
  double best = 1e9;
  run();
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

double peak_flops() {
  const int64_t threads = num_threads();
  std::vector<float> sinks(static_cast<size_t>(threads * kLine));  // a cache line each
  std::vector<int64_t> counts(static_cast<size_t>(threads));
  const double seconds = best_time([&] {
    parallel_for(threads, [&](int64_t t) {
      counts[static_cast<size_t>(t)] =
          kernels<float>().peak.multiply_add(&sinks[static_cast<size_t>(t * kLine)], kRounds);
    });
  });
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  return static_cast<double>(total) / seconds;
}

double copy_rate(int64_t bytes) {
  const int64_t threads = num_threads(), size = static_cast<int64_t>(sizeof(float));
  const int64_t part = std::max<int64_t>(1, bytes / 2 / size / threads);  // elements that a thread copies
  const int64_t copied = 2 * part * threads * size, times = std::max<int64_t>(1, kCopied / copied);
  const arena::Buffer<float> x(part * threads), y(part * threads);
  std::memset(x.get(), 0, static_cast<size_t>(part * threads * size));  // so that the pages are there
  // A thread copies its own part again and again: the cost of starting the threads is not that of copying.
  const double seconds = best_time([&] {
    parallel_for(threads, [&](int64_t t) {
      for (int64_t i = 0; i < times; ++i) {
        kernels<float>().layout.copy(y.get() + t * part, 1, x.get() + t * part, 1, part);
      }
    });
  });
  return static_cast<double>(copied * times) / seconds;
}

}  // namespace pynn::ops
